"""Helpers that know nothing of AWS: clocks, tasks, URLs, checks of arguments, bounded concurrency."""
