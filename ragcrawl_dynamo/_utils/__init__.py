"""Tools that know nothing of AWS: clocks, tasks, checks of arguments, bounded concurrency."""
