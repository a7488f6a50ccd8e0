"""Connects existing crawlers to DynamoDB. Each adapter needs the extra of its name."""
