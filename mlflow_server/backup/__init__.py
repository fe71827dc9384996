"""Backups: one archive of database and artifacts, restored anywhere."""
