"""The program `ae5`."""
