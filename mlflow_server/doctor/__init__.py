"""Check everything the server needs, without changing anything."""
