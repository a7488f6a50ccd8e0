"""The change feed: an ordered log of what commits did to a site's pages, and its readers."""
