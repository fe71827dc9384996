"""Buckets of object stores: list, delete, read and write, whichever it is."""
