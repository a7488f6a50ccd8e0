"""Saves and reads plain records by key: sites, runs, pages and frontier items."""
