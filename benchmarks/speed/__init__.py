"""Compares the speed with peers: one run, a process for each peer, ratios within rounds (`make bench`)."""
