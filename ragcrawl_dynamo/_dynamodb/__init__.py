"""A DynamoDB client that knows nothing of crawling: one request, its form, and many of them in few."""
