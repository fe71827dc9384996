"""How long each part of an upgrade takes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Watch:
    """Counts seconds by part.

    Attributes:
        seconds: So far, by name.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what the block takes."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began
