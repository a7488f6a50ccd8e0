"""What is stored of consumers that keep an index: their leases, their cursors, and the chunks of pages."""
