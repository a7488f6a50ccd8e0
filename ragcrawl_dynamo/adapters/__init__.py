"""Crawlers that people have, on this storage: one module each, with an extra of the same name."""
