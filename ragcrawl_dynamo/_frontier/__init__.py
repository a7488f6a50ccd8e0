"""The distributed queue of a run: links are enqueued, scheduled, leased and settled."""
