"""Remembers the sites of a backend, for which it has saved records."""

from __future__ import annotations


class SiteMemory:
    """Lists the sites in which a record is searched if only its id is given.

    Attributes:
        has_run: Whether a run was saved, so that the backend belongs to a crawl of these sites.
    """

    def __init__(self) -> None:
        # The latest site is the last one.
        self._site_ids: dict[str, None] = {}
        self.has_run: bool = False

    def __contains__(self, site_id: str) -> bool:
        return site_id in self._site_ids

    def note(self, *site_ids: str) -> None:
        """Remembers sites for which records are saved."""
        for site_id in site_ids:
            self._site_ids.pop(site_id, None)
            self._site_ids[site_id] = None

    def note_run(self, site_id: str) -> None:
        """Remembers a site for which a run is saved."""
        self.note(site_id)
        self.has_run = True

    def latest_first(self) -> list[str]:
        """Returns the ids of the sites, the latest one first."""
        return list(reversed(self._site_ids))
