"""Measures the cost of a page for each crawler, with its default storage and with its adapter."""
