"""Simulates AWS: a proxy before DynamoDB Local that behaves like DynamoDB where the engine does not.

    async with simulated_aws(endpoint, Settings(seed=1, index_lag=Lag(0.1, 10))) as aws:
        config = local_config(aws.url)                     # in this process
    with run_simulated_aws(endpoint, settings) as aws:     # in another process: tests.support.aws.process
        aws.configure(settings)
    python -m tests.support.aws ENDPOINT '{"seed": 1, "index_lag": {"least": 0.1, "most": 10}}'

DynamoDB Local is one process with one database: its indexes are never late, nothing is throttled,
transactions never meet, and each request gets its answer. The list says how AWS behaves, with the page of its
documentation (below docs.aws.amazon.com/amazondynamodb/latest/developerguide/), and how the simulation does.

Late indexes. AWS: a global index is updated after the write is acknowledged, usually within a fraction of
    a second, in unlikely failures later; applications have to expect old results (GSI.html, "Data
    synchronization"). Here: each index is read from a copy of its own, which is a table of the engine's. A
    write that changes an item's entry reaches it after a lag that is drawn for this write. The writes of
    one item arrive in order. Indexes have to be KEYS_ONLY. Real indexes have copies of their own, so that
    two reads can see different ages; here all readers see one age.
Torn moves. AWS: a changed index key is a deletion and an insertion (GSI.html, "Write capacity units"), in
    two partitions; nothing promises that a reader sees both or neither. Here: each of the two has a lag of
    its own.
Stale reads. AWS: an eventually consistent read may not show a write that was just done
    (HowItWorks.ReadConsistency.html). Here: half of these reads are answered from one late copy of the
    table. Local indexes are never stale.
Conflicts. AWS: PutItem, UpdateItem and DeleteItem are rejected if they meet a transaction on their item; a
    transaction is cancelled if it meets another write on one of its items (transaction-apis.html,
    "Transaction conflict handling"). Here: the proxy knows which items are being written and refuses those
    that meet, and some others at random. Writes of batches wait instead.
Errors. AWS: a write that ends with a 500, or without an answer, may have been done or not
    (Programming.Errors.html). Here: a 500 before the engine sees the request, or after it has done it, or
    a connection that is cut then.
Latency. Here: up to the usual time, for some requests up to that of the tail; half of it on the way back.
Limits of a key. AWS: a partition takes 3,000 read units and 1,000 write units a second
    (bp-partition-key-design.html); what was not used is kept for bursts, and a hot partition is split,
    down to single items (burst-adaptive-capacity.html), after minutes. Here: each value of a partition
    key, of a table or of an index, has a bucket that fills at that rate. Nothing is split, and no two keys
    share a partition. Scans are free. A throttled index throttles the writes of its table that change it
    (GSI.html, "Provisioned throughput considerations"): by the partition of the item's present entry, and
    of its next one if the request holds that. Batches leave over what is throttled, and fail if that is
    all of it; statements fail one by one; transactions fail with a reason for each write (reference of
    BatchWriteItem, BatchGetItem, BatchExecuteStatement, TransactWriteItems).

A random number depends on the seed and on its purpose: the n-th write of an item has the same lag in all runs
with one seed, in any order of concurrent requests. Time is read from `clock`, which a test can set.

Not simulated: expiry of items (nor does the engine), streams, limits of a table or an account, backups.
"""

from tests.support.aws.proxy import SimulatedAWS, simulated_aws
from tests.support.aws.settings import Lag, Latency, Limits, Settings, rough

__all__ = ["Lag", "Latency", "Limits", "Settings", "SimulatedAWS", "rough", "simulated_aws"]
