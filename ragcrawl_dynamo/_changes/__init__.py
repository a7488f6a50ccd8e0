"""The change feed: a log of what commits did to a site's pages, and its readers."""
