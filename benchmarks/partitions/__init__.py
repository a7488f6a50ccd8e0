"""Measures capacity units of each partition key value, of tables and indexes, on DynamoDB Local.

python -m benchmarks.partitions                   # all scenarios; writes benchmarks/data/partitions.json
python -m benchmarks.partitions --scale 0.1       # all of them, smaller; writes nothing
"""

from benchmarks.partitions.units import Partition, PartitionUnits, Spent

__all__ = ["Partition", "PartitionUnits", "Spent"]
