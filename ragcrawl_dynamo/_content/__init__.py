"""Page versions and their bodies: save, read, share, prune, collect garbage."""
