"""Finds the pages that a run has not seen, and leaves out those that it could not see."""

from __future__ import annotations

from collections.abc import Sequence

from ragcrawl_dynamo._commit.run_stats import recorded_result
from ragcrawl_dynamo._frontier.frontiers import Frontiers
from ragcrawl_dynamo._records.pages import PageStore
from ragcrawl_dynamo._records.runs import RunStore
from ragcrawl_dynamo._utils.urls import link_id
from ragcrawl_dynamo.errors import InvalidInputError
from ragcrawl_dynamo.models import FrontierStatus, Page


class UnseenPages:
    """Finds the unseen pages of all sites."""

    def __init__(self, frontiers: Frontiers, runs: RunStore, pages: PageStore) -> None:
        self._frontiers = frontiers
        self._runs = runs
        self._pages = pages

    async def find(self, site_id: str, run_id: str, limit: int) -> list[Page]:
        """Returns the pages that a run has not seen; see StorageBackend.get_unseen_pages."""
        run = await self._runs.get_completed(site_id, run_id)
        queue = self._frontiers.queue(site_id, run_id).run
        await queue.control.check_rules()

        async def unseen(urls: Sequence[str]) -> set[str]:
            """Returns the URLs that the run has no item of, or one that was completed without a commit.

            A commit saw its page, even if the clock of the machine that began the run was wrong.
            """
            ids = {}
            for url in urls:
                try:
                    ids[url] = link_id(queue.rules.apply(url)[0])
                except InvalidInputError:
                    # A page with such a URL is never an item of the run.
                    ids[url] = ""
            items = await queue.items.read_stored(list({item_id for item_id in ids.values() if item_id}))
            completed = {"S": FrontierStatus.COMPLETED}
            return {
                url
                for url, item_id in ids.items()
                if (item := items.get(item_id)) is None
                or (item["status"] == completed and recorded_result(item) is None)
            }

        return await self._pages.not_seen_since(site_id, run.started_at or run.created_at, limit, unseen)
