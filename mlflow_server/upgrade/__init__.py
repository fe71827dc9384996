"""Bring a store's schema to this release, so that it can be undone."""
