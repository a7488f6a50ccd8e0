"""Crawls a site in few calls: composes the methods of a storage backend."""
