"""What a removal has freed, and what a remover is. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mlflow_server.artifacts.removal.place import Place


@dataclass(frozen=True)
class Freed:
    """What removing has freed.

    Args:
        files: How many.
        size_bytes: All of them together.
    """

    files: int = 0
    size_bytes: int = 0

    def __add__(self, other: "Freed") -> "Freed":
        return Freed(self.files + other.files, self.size_bytes + other.size_bytes)


class Remover(Protocol):
    """Removes places of one kind of store."""

    def remove(self, places: Sequence[Place]) -> list[Freed | str]:
        """Remove places; may be repeated after a crash.

        Args:
            places: Some hundred at a time.

        Returns:
            For each place what was freed (nothing when it was not there), or why it could not be
            removed, in a sentence without credentials.
        """
        ...

    def close(self) -> None:
        """Give back what was opened; idempotent."""
        ...
