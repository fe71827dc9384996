"""How much one transaction takes, so that nobody waits long for its locks. Pure."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

# Sizes change by so much at most: the first transactions warm caches up.
_LEAST, _MOST = 0.25, 4.0


class Pace:
    """The size of the next transaction, by how long the ones before took.

    Args:
        first: At the beginning; sizes are of whatever unit the caller weighs in.
        fewest: Never less.
        most: Never more.
        wanted_s: How long a transaction should take, seconds.
    """

    def __init__(self, first: int, fewest: int, most: int, wanted_s: float = 0.5) -> None:
        self.size = first
        self._wanted_s = wanted_s
        self._fewest = fewest
        self._most = most

    def took(self, seconds: float) -> None:
        """Aim at transactions of the wanted length.

        Args:
            seconds: From the first lock to the commit.
        """
        factor = min(_MOST, max(_LEAST, self._wanted_s / max(seconds, 0.001)))
        self.size = min(self._most, max(self._fewest, int(self.size * factor)))

    def take(self, items: Sequence[tuple[T, int]]) -> list[T]:
        """The items from the front that fit into one transaction, at least one.

        Args:
            items: With the weight of each.
        """
        taken: list[T] = []
        total = 0
        for item, weight in items:
            total += weight
            if taken and total > self.size:
                break
            taken.append(item)
        return taken
