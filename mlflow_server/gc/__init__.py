"""Garbage collection: purge what was deleted longer ago than the TTL, rows and files."""
