"""Adapters: existing crawlers store their data in DynamoDB. Each has an extra of its name."""
