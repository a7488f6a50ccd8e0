"""Speed against peers: one run, each peer in a process of its own, ratios within rounds (`make bench`)."""
