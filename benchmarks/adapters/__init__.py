"""Measures what a page costs each crawler, with its default storage and with its adapter."""
