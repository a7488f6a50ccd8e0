"""Writes that span several rooms: the commit of a page, tombstones, the end of a run, a site's deletion."""
