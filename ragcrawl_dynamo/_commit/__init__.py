"""Writes that span several rooms, first of all the commit of a page in one transaction."""
