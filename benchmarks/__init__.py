"""Programs that measure what storage costs and how fast it is, beside others in the same run."""
