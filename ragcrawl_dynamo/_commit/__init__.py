"""Runs operations that span several rooms, above all the commit of a page in one transaction."""
