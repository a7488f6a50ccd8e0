"""Programs that show what storage costs and how fast it is, against others in the same run."""
