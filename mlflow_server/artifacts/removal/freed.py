"""What a removal has freed, what a look has found, and what a remover is. Pure."""

from collections.abc import Iterator, Sequence
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


@dataclass(frozen=True)
class Found:
    """What lies at a place.

    Args:
        files: How many; 0 when there is nothing, or an empty folder.
        size_bytes: All of them together.
        newest_s: When the newest of them was written, or an empty folder was changed, in seconds
            since the epoch; None when nothing is there or the store does not tell.
    """

    files: int = 0
    size_bytes: int = 0
    newest_s: float | None = None

    def with_file(self, size_bytes: int, written_s: float | None) -> "Found":
        """The same and one file more."""
        times = [time for time in (self.newest_s, written_s) if time is not None]
        return Found(self.files + 1, self.size_bytes + size_bytes, max(times, default=None))


class Remover(Protocol):
    """Looks at places of one store, and removes them."""

    def remove(self, places: Sequence[Place]) -> list[Freed | str]:
        """Remove places; may be repeated after a crash.

        Args:
            places: Some hundred at a time, none twice and none inside another.

        Returns:
            For each place what was freed (nothing when it was not there), or why it could not be
            removed, in a sentence without credentials.
        """
        ...

    def measure(self, places: Sequence[Place]) -> list[Found | str]:
        """Look at places, and change nothing.

        Returns:
            For each what is there, or why that cannot be told, in a sentence.
        """
        ...

    def folders(self, parts: Sequence[str]) -> Iterator[str]:
        """Names of the folders directly below one; none when it is not there.

        Args:
            parts: From the root of the store down to it.

        Raises:
            OpsError: They cannot be listed.
        """
        ...

    def remove_empty(self, folders: Sequence[tuple[str, ...]]) -> None:
        """Remove those of these folders that are empty, in this order.

        Does nothing where there are no folders but only keys with slashes in them.
        """
        ...

    def check(self, parts: Sequence[str]) -> bool:
        """Find out, without writing anything, whether things below can be listed and removed.

        Args:
            parts: From the root of the store down to a folder, which need not be there.

        Returns:
            True when there is anything at all below it.

        Raises:
            PermissionDeniedError: They cannot, with these credentials.
            UnavailableError: The store is not there or cannot be reached.
            SettingsError: What is set for it cannot be meant.
        """
        ...

    def close(self) -> None:
        """Give back what was opened; idempotent."""
        ...
