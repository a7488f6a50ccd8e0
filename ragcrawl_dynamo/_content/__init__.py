"""Page versions and their bodies: packed, stored in parts, shared, pruned and collected."""
