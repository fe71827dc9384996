"""What a bucket of any object store can do."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mlflow_server.artifacts.content import Source


@dataclass(frozen=True, slots=True)
class Object:
    """One object of a store.

    Args:
        key: Its whole name.
        size_bytes: Of its content.
        written_s: When it was written last, in seconds since the epoch.
        is_folder: It only stands for a folder, which goes after everything in it.
        stamp: Another one for another content; the store's ETag or generation.
    """

    key: str
    size_bytes: int
    written_s: float | None
    is_folder: bool = False
    stamp: str = ""


@dataclass(frozen=True)
class Page:
    """Some objects in the order of the store.

    Args:
        objects: About a thousand at most.
        more: What to give the store for the next page; None after the last one.
    """

    objects: Sequence[Object]
    more: str | None


@dataclass(frozen=True)
class Refusal:
    """Why an object could not be deleted.

    Args:
        reason: A sentence.
        is_temporary: It may go well in a moment.
    """

    reason: str
    is_temporary: bool = False


class Bucket(Protocol):
    """What can be listed and deleted; called from many threads.

    Args:
        keys_per_request: How many `delete` takes at a time.
        can_skip: `list` knows `after`, and lists keys in their order.
    """

    keys_per_request: int
    can_skip: bool

    @property
    def has_folders(self) -> bool:
        """True when folders are objects too, called as they are but for the slash at the end."""
        ...

    def list(self, prefix: str, *, after: str = "", more: str | None = None) -> Page:
        """Objects whose key begins with `prefix`.

        Args:
            prefix: What they begin with; empty for all.
            after: Only those whose keys come after this one.
            more: From the page before.

        Raises:
            OpsError: They cannot be listed.
        """
        ...

    def list_folders(self, prefix: str) -> Iterator[str]:
        """What comes between `prefix` and the next slash, of all keys that have one, once each.

        Raises:
            OpsError: They cannot be listed.
        """
        ...

    def delete(self, keys: Sequence[str]) -> Mapping[str, Refusal]:
        """Delete objects.

        Returns:
            Those that could not be deleted; one that was not there is deleted.
        """
        ...

    def check(self, prefix: str) -> bool:
        """Find out, without writing anything, whether objects can be listed and deleted.

        Args:
            prefix: Of what is listed.

        Returns:
            True when there is anything at all below it.

        Raises:
            PermissionDeniedError: They cannot, with these credentials.
            UnavailableError: The store is not there or cannot be reached.
            SettingsError: What is set for it cannot be meant.
        """
        ...

    def close(self) -> None:
        """Give back what was opened."""
        ...


class Content(Protocol):
    """The content of one object while it arrives.

    Args:
        size_bytes: Of the whole object, wherever reading began.
        stamp: As in `Object`.
    """

    size_bytes: int
    stamp: str

    def read(self, size: int) -> bytes:
        """Up to so many bytes; none at the end.

        Raises:
            UnavailableError: It has broken off; the rest may be asked for anew.
            OpsError: It cannot be read at all.
        """
        ...

    def close(self) -> None:
        """Give the connection back, or up when there is more to come."""
        ...


class ContentBucket(Bucket, Protocol):
    """A bucket whose objects can be read and written, too; called from many threads."""

    def find(self, key: str) -> Object | None:
        """Look for one object.

        Raises:
            OpsError: The store does not tell.
        """
        ...

    def open(self, key: str, start: int = 0, stamp: str | None = None) -> Content:
        """Begin to read an object.

        Args:
            key: Which.
            start: The first byte that is wanted; behind the end, nothing is read.
            stamp: Only with this one.

        Raises:
            VanishedError: It is not there.
            ChangedError: It has another stamp.
            OpsError: It cannot be read.
        """
        ...

    def write(self, key: str, source: Source, size_bytes: int | None) -> None:
        """Write an object, whole or not at all, in the place of what is there.

        Args:
            key: Which.
            source: Its content.
            size_bytes: How much that is, where it is known.

        Raises:
            ChangedError: It was more or less than that.
            OpsError: It cannot be written.
            Exception: Whatever the source raises.
        """
        ...
