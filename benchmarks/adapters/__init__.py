"""What a page costs each crawler that has an adapter, beside the crawler's own default storage."""
