"""Stores the state of search indexes: their leases, their cursors, and the chunks of pages."""
