"""The promises of queue and commits hold where indexes are late, and requests conflict, fail or lose answers.

Time stands still except where a test moves it: a process claims what it added itself, before the index shows
it.
"""

# ruff: noqa: F403 # the tests of other modules, with the fixtures of this folder

from __future__ import annotations

from dataclasses import replace

import pytest
import pytest_asyncio

from ragcrawl_dynamo import DynamoDBBackend, Frontier
from tests.contract.commit.test_commit import *
from tests.contract.frontier.test_counters import *
from tests.contract.frontier.test_frontier import *
from tests.contract.frontier.test_hosts import *
from tests.contract.frontier.test_redirects import *
from tests.contract.frontier.test_scheduler import *
from tests.contract.frontier.test_settlement import *
from tests.contract.frontier.test_termination import *
from tests.contract.frontier.test_worker import *
from tests.support.aws import Lag, Settings

# In place of theirs, which choose engines.
pytestmark = pytest.mark.aws

# They claim items that another process added or released, that were saved as records, or that were added
# before the first claim of a run: only the index shows these items.
NEED_THE_INDEX = {
    "test_clock_that_is_set_back_takes_no_time_from_leases",
    "test_commit_page_of_unchanged_content_writes_no_body",
    "test_counts_of_a_process_that_does_nothing_else_are_stored_a_second_later",
    "test_frontier_of_one_run_does_not_see_another_run",
    "test_frontier_ttl_expires_final_items",
    "test_host_limits_are_durable_and_seen_by_other_processes",
    "test_host_limits_begin_with_those_of_the_run",
    "test_is_finished_only_after_items_saved_as_records_are_done",
    "test_pause_is_seen_by_the_next_claim_of_another_process",
    "test_recount_restores_counts_that_a_killed_process_lost",
    "test_settlement_refuses_claims_of_another_run",
    "test_worker_handles_every_item_and_ends",
    "test_worker_summary_counts_each_item_by_the_result_of_its_handler",
}


@pytest.fixture
def aws_settings(aws_settings: Settings, request: pytest.FixtureRequest) -> Settings:
    is_late = request.node.originalname not in NEED_THE_INDEX
    return replace(aws_settings, index_lag=Lag() if is_late else None, torn_moves=is_late)


@pytest_asyncio.fixture
async def frontier(backend: DynamoDBBackend) -> Frontier:
    """A process that has claimed before, so that its additions are offered to its own claims."""
    frontier = backend.frontier("site", "run")
    assert await frontier.claim() == []
    return frontier
