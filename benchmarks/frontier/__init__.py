"""Checks the promises of the frontier's queue, and measures its speed and costs, on DynamoDB Local.

python -m benchmarks.frontier                     # every row, about a quarter of an hour
python -m benchmarks.frontier --only urgent       # one scenario
python -m benchmarks.frontier --scale 0.1         # all of them, smaller
"""

from benchmarks.frontier.contention import LINKS, NEW_LINKS, contend, crawl
from benchmarks.frontier.measure import Cost, totals

__all__ = ["LINKS", "NEW_LINKS", "Cost", "contend", "crawl", "totals"]
