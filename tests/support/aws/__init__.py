"""A simulated AWS: a proxy before DynamoDB Local that behaves as DynamoDB does where the engine does not.

    async with simulated_aws(endpoint, Settings(seed=1, index_lag=Lag(0.1, 10))) as aws:
        config = local_config(aws.url)                     # in this process
    with run_simulated_aws(endpoint, settings) as aws:     # tests.support.aws.process: in a process of its own
        aws.configure(settings)
    python -m tests.support.aws ENDPOINT '{"seed": 1, "index_lag": {"least": 0.1, "most": 10}}'

DynamoDB Local is one process on one database: its indexes are never late, nothing is throttled, transactions
never meet, and an answer is always right. All pages named below are of AWS's "Amazon DynamoDB Developer Guide".

| behaviour | on AWS | here |
|---|---|---|
| late indexes | Changes reach a global index "within a fraction of a second, under normal conditions"; "in some unlikely failure scenarios, longer propagation delays might occur" ("Using Global Secondary Indexes", data synchronization). | Each index is read from a copy, a table of the engine's, that each write of an item's index keys reaches after a lag of its own. The writes of one item come in order. KEYS_ONLY indexes only. |
| torn moves | An entry whose key changes is a deletion and an insertion, in two partitions of the index ("Using Global Secondary Indexes", write cost); that no reader sees one without the other is promised nowhere. | The two have lags of their own. |
| stale reads | An eventually consistent read "might not reflect the results of a recently completed write" ("DynamoDB read consistency"). | Half of these reads come from one late copy of the table. Local indexes are never stale. |
| conflicts | A write that meets a transaction on its item is rejected; a transaction that meets any write on one of its items is cancelled ("Amazon DynamoDB Transactions: How it works", transaction conflict handling). | The proxy knows which items are being written. It refuses what meets, and some more at random. Writes of batches wait instead. |
| errors of the server | A write that ends with a 500 "might have succeeded or failed" ("Error handling with DynamoDB"). | A 500 before the engine has seen the request, or after it has done it; or the connection is cut then. |
| latency | Single-digit milliseconds usually, with a tail. | Up to a usual time, and for some requests up to that of the tail, half of it on the way back. |
| limits of a key | A partition takes 3,000 read and 1,000 write units a second; keys are isolated, and split for heat, after minutes ("Best practices for designing and using partition keys effectively", "DynamoDB burst and adaptive capacity"). | Each value of a partition key, of a table and of an index, has a bucket that fills at that rate. Nothing is ever split, and no two keys share a partition. Scans are free. |
| throttled indexes | If an index has not enough write capacity, writes of the table that change it are throttled ("Using Global Secondary Indexes", provisioned throughput considerations). | The same, by the partitions of the item's present entry and, if the request holds it, of its next one. |
| throttled parts | Batches leave items over and fail if all of them are; statements fail one by one; transactions fail with reasons (reference of BatchWriteItem, BatchExecuteStatement, TransactWriteItems). | The same. |

Everything that is drawn is drawn by `seed` and by what it is for: the n-th write of an item has the same lag in
each run with one seed, in whatever order concurrent requests come. Time is `clock`, so that a test can set it.

Not simulated: the expiry of items (the engine does not delete them either), streams, limits of a whole table
or account, backups, the size of an index's copy in what a read of it costs.
"""

from tests.support.aws.proxy import SimulatedAWS, simulated_aws
from tests.support.aws.settings import Lag, Latency, Limits, Settings, rough

__all__ = ["Lag", "Latency", "Limits", "Settings", "SimulatedAWS", "rough", "simulated_aws"]
