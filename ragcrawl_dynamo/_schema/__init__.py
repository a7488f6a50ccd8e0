"""Defines the five tables: their keys and indexes, how they are created and how they are migrated."""
