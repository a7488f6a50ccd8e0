"""Plain records: sites, runs, pages and frontier items, saved and read by key."""
