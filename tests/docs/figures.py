"""The figures in the text of the pages, outside of the regions of benchmarks, and where each comes from.

A figure is a number with a unit, or a cell of a table with nothing but a number. If it is formatted here from
a constant or from a data file, the page cannot differ from it. Otherwise its source is a test, as
"tests/x.py::name", or a command at a commit that the page names, or a rule of AWS; or it is not measured at
all: a promise, a limit of a format, an example.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from benchmarks import mutants, report, scale
from benchmarks.machine import ROOT
from benchmarks.partitions.crawls import READS_A_SECOND, WRITES_A_SECOND
from ragcrawl_dynamo import DynamoDBConfig
from ragcrawl_dynamo._commit.commit import _ATTEMPTS as ATTEMPTS
from ragcrawl_dynamo._crawl.crawl import _MOST_UNSEEN as MOST_UNSEEN
from ragcrawl_dynamo._dynamodb.packed_values import PACKED_ABOVE
from ragcrawl_dynamo._dynamodb.sizes import MAX_ITEM_BYTES
from ragcrawl_dynamo._dynamodb.values import MAX_DIGITS
from ragcrawl_dynamo._frontier.host_candidates import LONGEST_PAUSE
from ragcrawl_dynamo._frontier.lease_keeper import _PARTS as LEASE_PARTS
from ragcrawl_dynamo._frontier.membership import _ALIVE_SECONDS as ALIVE
from ragcrawl_dynamo._frontier.membership import _BEAT_SECONDS as BEAT
from ragcrawl_dynamo._indexing.lease import LEASE_SECONDS
from ragcrawl_dynamo._schema.keys import MAX_ID_BYTES

UNITS = (
    "ms|µs|s|seconds?|minutes?|hours?|MB|KB|GB|MiB|bytes|digits|times|pages/s|(?:read |write )?units?|reads?|"
    "writes?|requests?|pages?|questions|dollars|tests?|chunks|items?|passed"
)
NUMBER = r"\d[\d,.]*(?:(?: to | of )\d[\d,.]*)?"
FIGURE = re.compile(rf"(?<![\w.,/-]){NUMBER} (?:{UNITS})\b|\d[\d.,]* ?%|(?<=\| ){NUMBER}(?= \|)")

# Not prose: code in fences and in indented lines, in the text and in links.
CODE = re.compile(r"^```.*?^```$|^ {4}.*?$|`[^`\n]*`|\]\([^)]*\)|<!--.*?-->", re.DOTALL | re.MULTILINE)


def figures_of(page: Path) -> set[str]:
    """Returns the figures of a page that are outside of regions and code."""
    text = CODE.sub("·", report.REGION.sub("", page.read_text()))
    return set(FIGURE.findall(re.sub(r"(?<=\S)\n *(?=\S)", " ", text)))


def constant(path: str, name: str) -> Any:
    """Returns a constant of a module that this environment cannot import."""
    for statement in ast.parse((ROOT / path).read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name:
            return ast.literal_eval(statement.value)
    raise KeyError(name)


def default(name: str) -> Any:
    """Returns the default of a setting."""
    return DynamoDBConfig.model_fields[name].default


CYCLE = report.load("cycle").figures
NEW, UNCHANGED = CYCLE["commits"]["created"], CYCLE["commits"]["unchanged"]
WITHOUT, WITH = CYCLE["changes"]["without content"], CYCLE["changes"]["with content"]
OURS = report.load("bodies").figures["results"][-1]
CRAWLED = [
    re.findall(r"[\d.]+", row["measured"])
    for row in report.load("frontier").figures["rows"]
    if row["scenario"].startswith("a crawled page")
]
SCRAPY_PASSED = constant("tests/adapters/scrapy/suite/scrapy_suite.py", "FLOOR")
RAGCRAWL_PASSED = constant("tests/adapters/ragcrawl/suite/ragcrawl_suite.py", "PASSED")

BILL = "tests/integration/test_bill.py"
FOLLOWING = "test_capacity_units_of_following_without_changes"
PRINTED = "tests/docs/test_blocks.py::test_docs_cost_table_is_the_output_of_the_calculator"
CALCULATED = FIGURE.findall(
    (ROOT / "docs/cost.md").read_text().partition("It prints:")[2].partition("\nIt ")[0]
)
QUEUE_UNITS = "tests/integration/frontier/test_units.py"
ITEM = f"{MAX_ITEM_BYTES // 1024} KB"
AWS_UNITS = 'AWS: "DynamoDB on-demand capacity mode"'
CONSTANT = "a constant of the code, formatted here"
DATA = "a data file, formatted here"
VERSION = "a version of this package"
PROMISE = "a promise, to which the region below compares what was measured"

SOURCES: dict[str, dict[str, str]] = {
    "README.md": {
        f"{NEW['by_rule']:.1f} write units": DATA,
        f"{NEW['by_rule'] * scale.DOLLARS_A_MILLION_WRITES:.0f} dollars": DATA,
    },
    "docs/adapters/crawlee.md": {f"1 to {MAX_ID_BYTES:,} bytes": CONSTANT, ITEM: CONSTANT},
    "docs/adapters/ragcrawl-differences.md": {ITEM: CONSTANT},
    "docs/adapters/scrapy.md": {f"{SCRAPY_PASSED:,} tests": CONSTANT},
    "docs/adapters/tests.md": {
        f"{RAGCRAWL_PASSED} passed": CONSTANT,
        f"{SCRAPY_PASSED:,} passed": CONSTANT,
        "500 pages": "the default of --pages in benchmarks/adapters/soak.py",
    },
    "docs/coming-from.md": {ITEM: CONSTANT},
    "docs/cost.md": {
        "1 KB": AWS_UNITS,
        "4 KB": AWS_UNITS,
        f"{WITH['read_units']:.2f} units": DATA,
        f"{WITH['read_units']:.2f} read units": DATA,
        "1": f"{QUEUE_UNITS}::test_write_units_of_claim_and_renew_are_one_each",
        "2": f"{QUEUE_UNITS}::test_write_units_of_a_host_are_two_as_it_comes_and_two_as_it_goes",
        "3": f"{QUEUE_UNITS}::test_write_units_of_a_failed_item_are_three",
        # Two looks a second at each list, at half a unit each.
        f"{default('frontier_buckets')} read units": CONSTANT,
        # Every ten seconds, one unit and one for each of two processes.
        f"{24 * 3600 // 10 * 3:,} read units": f"{BILL}::{FOLLOWING}",
        **dict.fromkeys(CALCULATED, PRINTED),
    },
    "docs/crawling.md": {"304": "a status of HTTP", f"{MOST_UNSEEN:,} pages": CONSTANT},
    "docs/design.md": {f"{NEW['by_rule']:.1f} write units": DATA},
    "docs/failures.md": {
        f"{ATTEMPTS} times": CONSTANT,
        f"{ALIVE:.0f} to {ALIVE + BEAT:.0f} seconds": CONSTANT,
        f"{LONGEST_PAUSE:.0f} seconds": CONSTANT,
        f"{2 * default('connect_timeout'):.0f} s": CONSTANT,
        f"{LEASE_PARTS / (LEASE_PARTS - 1):g} times": CONSTANT,
    },
    "docs/frontier.md": {
        **dict.fromkeys(("0.3 requests", "1.5 requests", "100 requests", "150 pages/s"), PROMISE),
        **dict.fromkeys(("9 write units", "1 read unit", "2 s", "20 MB", "35 s"), PROMISE),
        "4 units": f"{BILL}::test_capacity_units_of_commit_page_new",
        "1 KB": AWS_UNITS,
    },
    "docs/glossary.md": {ITEM: CONSTANT, "100 writes": 'AWS: "TransactWriteItems"'},
    "docs/methods.md": {
        "1 KB": AWS_UNITS,
        "4 KB": AWS_UNITS,
        "8 KB": AWS_UNITS,
        "0.5 read": AWS_UNITS,
        "1 read": f"{BILL}::test_capacity_units_of_reading_by_key_and_by_index",
        "1.5 reads": f"{BILL}::test_capacity_units_of_reading_by_key_and_by_index",
        "1 write": f"{BILL}::test_capacity_units_of_saving_small_records",
        "3 writes": f"{BILL}::test_capacity_units_of_commit_page_unchanged",
        "2 reads": f"{BILL}::test_capacity_units_of_following_the_links_of_an_unchanged_page",
        f"{NEW['by_rule']:.1f} writes": DATA,
        f"{WITHOUT['read_units']:.2f} reads": DATA,
        "{} to {} requests".format(*(figures[0] for figures in CRAWLED)): DATA,
        "{} to {} writes".format(*(figures[2] for figures in CRAWLED)): DATA,
    },
    "docs/mutants.md": {f"{mutants.FLOOR:.0%}".replace("%", " %"): CONSTANT},
    "docs/rag.md": {
        **dict.fromkeys(
            (
                "219 pages",
                "3,636 chunks",
                "2 read units",
                "22 read units",
                "11 write units",
                "24 of 30 questions",
            ),
            "`make demo-rag` at commit f5f868e",
        ),
        f"{LEASE_SECONDS:.0f} seconds": CONSTANT,
        f"{WRITES_A_SECOND:,} writes": CONSTANT,
    },
    "docs/scale.md": {
        f"{WRITES_A_SECOND:,} write units": CONSTANT,
        f"{READS_A_SECOND:,} read units": CONSTANT,
        "4 write units": "an example",
        f"{WRITES_A_SECOND // 4} pages/s": "an example",
        f"{scale.HIGHEST_CEILING:,} pages/s": CONSTANT,
        f"{scale.BODY_WRITES} write units": CONSTANT,
        "91 KB": "the size of a page of Python's documentation, in benchmarks/scale.py",
        f"{scale.NEW_TABLE_WRITES:,} write": CONSTANT,
        f"{3 * scale.NEW_TABLE_WRITES:,} read units": CONSTANT,
        f"{scale.TABLE_QUOTA:,} units": CONSTANT,
        "100 bytes": 'AWS: "DynamoDB item sizes and formats"',
        "25 GB": 'AWS: "Amazon DynamoDB pricing"',
        "1 MB": 'AWS: "Query"',
        "50 ms": "an example",
        "300 seconds": 'AWS: "DynamoDB burst and adaptive capacity"',
    },
    "docs/services.md": {f"{default('call_timeout'):.0f} seconds": CONSTANT},
    "docs/settings.md": {
        ITEM: CONSTANT,
        f"{MAX_ID_BYTES:,} bytes": CONSTANT,
        f"{default('max_content_bytes') // 1024**2} MiB": CONSTANT,
        f"{PACKED_ABOVE // 1024} KB": CONSTANT,
        f"{MAX_DIGITS} digits": CONSTANT,
    },
    "docs/speed.md": {
        "25 items": 'AWS: "BatchWriteItem"',
        "40 KB": "a workload of benchmarks/speed/workloads.py",
        "5 ms": "a workload of benchmarks/speed/workloads.py",
    },
    "docs/upgrading.md": dict.fromkeys(("0.1", "0.2"), VERSION),
}

# Lines of code on pages, which have figures of the data files.
CODE_LINES = {
    "docs/cost.md": (
        f"first = pages * {NEW['by_rule']:.1f}\n",
        f"(share_changed * {NEW['by_rule']:.1f} + (1 - share_changed) * {UNCHANGED['by_rule']:.1f})\n",
        f"reads = pages * ({NEW['read_units']:.1f} + crawls_a_month * "
        f"({UNCHANGED['read_units']:.1f} + {WITH['read_units']:.2f}))\n",
    ),
}
