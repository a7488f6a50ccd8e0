"""Programs that measure the cost and the speed of storage, and compare it with other libraries in one run."""
