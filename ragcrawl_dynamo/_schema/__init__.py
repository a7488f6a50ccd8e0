"""What the five tables hold: their keys, their indexes, how they are made and migrated."""
