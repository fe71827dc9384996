"""Uniform access to artifact destinations."""
