"""Remove folders of a local disk: rename into `.gc-trash` first, purge from there."""

import contextlib
import errno
import hashlib
import os
import resource
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import TypeVar

from mlflow_server.artifacts.removal.freed import Found, Freed
from mlflow_server.artifacts.removal.place import Place, neighbours
from mlflow_server.artifacts.removal.tree import make_accessible, measure, purge
from mlflow_server.artifacts.shown import shown
from mlflow_server.errors import (
    BadInputError,
    OpsError,
    PermissionDeniedError,
    SettingsError,
    UnavailableError,
)

TRASH = ".gc-trash"
# To look for entries in, which takes no permission to list them.
_PASSAGE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_READABLE = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# More of them wait for the journal of the file system, and take each other's processor for it.
_THREADS = 4
_NEIGHBOURS_AT_ONCE = 64

T = TypeVar("T")


class LocalRemover:
    """Removes folders of a local disk.

    A folder goes to the trash first, where nobody looks, under a name that a repetition finds
    again; renaming is a hundred times faster than removing. What cannot be renamed is removed where
    it is. In folders of ours that forbid it we allow it, but only below the place.

    Args:
        root: Nothing above it is ever touched. The root of the file system means a place of its
            own: then the trash is beside the folder.
        subject: How messages begin.
    """

    def __init__(self, root: Path, subject: str) -> None:
        self._root = root
        self._subject = subject
        self._trashes: set[tuple[str, ...]] = set()
        self._pool = ThreadPoolExecutor(_THREADS)

    def remove(self, places: Sequence[Place]) -> list[Freed | str]:
        """See `Remover`."""
        return self._each(places, self._remove, with_trash=True)

    def measure(self, places: Sequence[Place]) -> list[Found | str]:
        """See `Remover`."""
        return self._each(places, self._measure, with_trash=False)

    def folders(self, parts: Sequence[str]) -> Iterator[str]:
        """See `Remover`; bytes that are no UTF-8 are surrogates in the names."""
        with self._explained(parts), self._opened(parts) as folder:
            if folder is None:
                return
            with _listed(folder) as entries:
                for entry in entries:
                    if entry.name != TRASH and entry.is_dir(follow_symlinks=False):
                        yield entry.name

    def remove_empty(self, folders: Sequence[tuple[str, ...]]) -> None:
        """See `Remover`."""
        for parts in folders:
            with contextlib.suppress(OSError, OpsError), self._opened(parts[:-1]) as above:
                if above is not None:
                    os.rmdir(parts[-1], dir_fd=above)

    def check(self, parts: Sequence[str]) -> bool:
        """See `Remover`."""
        with self._explained(parts), self._opened(parts) as folder:
            if folder is None:
                if self._root.joinpath(*parts).exists():
                    raise SettingsError(
                        [f"{self._subject}: {self._show(parts)} is a file, not a folder"],
                        hint="name a folder or a bucket",
                    )
                return False
            if not os.access(".", os.R_OK | os.W_OK | os.X_OK, dir_fd=folder):
                raise PermissionDeniedError(
                    f"{self._subject}: cannot write to {self._show(parts)}", hint=_hint()
                )
            with _listed(folder) as entries:
                return any(True for _ in entries)

    def close(self) -> None:
        """Remove the trash folders; what a crash left in them stays for its journal entry."""
        self._pool.shutdown()
        self.remove_empty([(*parts, TRASH) for parts in self._trashes])
        self._trashes.clear()

    def _each(
        self, places: Sequence[Place], work: Callable[["_Around", Place], T], *, with_trash: bool
    ) -> list[T | str]:
        """Do something with each place; neighbours share what has to be opened."""
        results: list[T | str] = [""] * len(places)

        def work_off(indices: Sequence[int]) -> None:
            try:
                with self._around(places[indices[0]].parts[:-1], with_trash) as around:
                    for index in indices:
                        try:
                            results[index] = work(around, places[index])
                        except (OSError, OpsError) as err:
                            results[index] = self._explain(places[index], err)
            except (OSError, OpsError) as err:
                for index in indices:
                    results[index] = self._explain(places[index], err)

        # Threads help where the disk is waited for; on a fast one they only wait for each other.
        waiting = list(neighbours(places, _NEIGHBOURS_AT_ONCE))
        while waiting:
            waits = _waits()
            work_off(some := waiting.pop())
            if _waits() - waits > len(some):
                list(self._pool.map(work_off, waiting))
                break
        return results

    def _remove(self, around: "_Around", place: Place) -> Freed:
        freed = Freed()
        for aside in _names_aside(place):
            if around.trash is not None and _mode(aside, around.trash) is not None:
                freed += purge(aside, around.trash)
        with self._found(around.folder, place, insists=True) as (folder, parts):
            if folder is None:
                return freed
            name, aside = parts[-1], _name_aside(parts)
            if around.trash is not None and _is_moved(name, folder, aside, around.trash):
                return freed + purge(aside, around.trash)
            return freed + purge(name, folder)

    def _measure(self, around: "_Around", place: Place) -> Found:
        with self._found(around.folder, place, insists=False) as (folder, parts):
            return Found() if folder is None else measure(parts[-1], folder)

    @contextlib.contextmanager
    def _found(
        self, above: int | None, place: Place, *, insists: bool
    ) -> Iterator[tuple[int | None, tuple[str, ...]]]:
        """What belongs to a place: the folder of the id, or of that no more than the location.

        Args:
            above: The folder that the place is in.
            place: Where.
            insists: Give ourselves the permission to look into our own folders.

        Yields:
            The folder that it is in, None when it is not there; and the way to it.
        """
        if above is None or not self._is_there(above, place.parts):
            yield None, place.parts
        elif not place.inside or _is_alone(above, place, insists=insists):
            yield above, place.parts
        else:
            with self._opened(place.end[:-1]) as folder:
                if folder is not None and os.fstat(folder).st_dev != os.fstat(above).st_dev:
                    raise OSError(errno.EXDEV, "another disk is mounted there")
                is_there = folder is not None and self._is_there(folder, place.end)
                yield (folder if is_there else None), place.end

    def _is_there(self, folder: int, parts: tuple[str, ...]) -> bool:
        mode = _mode(parts[-1], folder)
        if mode is not None and stat.S_ISLNK(mode):
            raise self._is_a_link(parts)
        return mode is not None

    @contextlib.contextmanager
    def _around(self, parts: tuple[str, ...], with_trash: bool) -> Iterator["_Around"]:
        holder_parts = self._trash_holder(parts)
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(self._opened(parts))
            trash = None
            holder = stack.enter_context(self._opened(holder_parts)) if with_trash else None
            if holder is not None:
                with contextlib.suppress(OSError):  # then places are purged where they are
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(TRASH, 0o700, dir_fd=holder)
                    self._trashes.add(holder_parts)
                    opened = os.open(TRASH, _PASSAGE | os.O_NOFOLLOW, dir_fd=holder)
                    stack.callback(os.close, opened)
                    trash = opened if os.access(".", os.W_OK | os.X_OK, dir_fd=opened) else None
            yield _Around(folder, trash)

    def _trash_holder(self, parts: tuple[str, ...]) -> tuple[str, ...]:
        """The folder that has the trash for what is in a folder."""
        return parts if self._root == Path("/") else ()

    @contextlib.contextmanager
    def _opened(self, parts: Sequence[str]) -> Iterator[int | None]:
        """A folder; None when it is not there.

        Raises:
            BadInputError: The way from the root to it leads through a link.
            OSError: It cannot be reached.
        """
        folder = self._open(parts)
        try:
            yield folder
        finally:
            if folder is not None:
                os.close(folder)

    def _open(self, parts: Sequence[str]) -> int | None:
        try:
            folder = os.open(self._root, _PASSAGE)
        except (FileNotFoundError, NotADirectoryError):
            return None
        for number, part in enumerate(parts):
            above = folder
            try:
                folder = os.open(part, _PASSAGE | os.O_NOFOLLOW, dir_fd=above)
            except FileNotFoundError:
                return None
            except NotADirectoryError:
                if stat.S_ISLNK(_mode(part, above) or 0):
                    raise self._is_a_link(parts[: number + 1]) from None
                return None
            finally:
                os.close(above)
        return folder

    @contextlib.contextmanager
    def _explained(self, parts: Sequence[str]) -> Iterator[None]:
        """Tell what is wrong with a folder."""
        try:
            yield
        except PermissionError:
            raise PermissionDeniedError(
                f"{self._subject}: {self._show(parts)} may not be entered", hint=_hint()
            ) from None
        except OSError as err:
            raise UnavailableError(
                f"{self._subject}: {self._show(parts)}: {err.strerror}"
            ) from None

    def _explain(self, place: Place, err: OSError | OpsError) -> str:
        if isinstance(err, OpsError):
            return err.message
        name = err.filename if isinstance(err.filename, str) else ""
        above, first = place.parts[:-1], name.partition("/")[0]
        if first in _names_aside(place):
            above = (*self._trash_holder(above), TRASH)
        elif first not in (place.parts[-1], place.end[-1]):
            name = place.parts[-1]
        elif first != place.parts[-1]:
            above = place.end[:-1]
        return f"{self._show((*above, name))}: {err.strerror}"

    def _is_a_link(self, parts: Sequence[str]) -> OpsError:
        return BadInputError(
            f"{self._show(parts)} is a symbolic link; what it leads to may be another's"
        )

    def _show(self, parts: Sequence[str]) -> str:
        return shown(os.fspath(self._root.joinpath(*parts)))


@dataclass(frozen=True)
class _Around:
    """What is open while neighbours are worked on.

    Args:
        folder: That they are in; None when it is not there.
        trash: Where they go; None when there is none.
    """

    folder: int | None
    trash: int | None


def _names_aside(place: Place) -> list[str]:
    """What a place may be called in the trash: whole, and the location alone."""
    return [_name_aside(parts) for parts in dict.fromkeys((place.parts, place.end))]


def _name_aside(parts: tuple[str, ...]) -> str:
    """The name of a folder in the trash: always the same, and no other's."""
    return hashlib.blake2b(os.fsencode("/".join(parts)), digest_size=16).hexdigest()


def _is_alone(above: int, place: Place, *, insists: bool) -> bool:
    """True when the folder of an id has nothing in it but the location.

    Also when the location is not there, and the way to it ends in an empty folder; and when there
    is a file in the place of the id's folder.
    """
    with contextlib.ExitStack() as stack:
        for name, only in pairwise((place.parts[-1], *place.inside)):
            try:
                above = _open_to_list(name, above, insists=insists)
            except (FileNotFoundError, NotADirectoryError):
                return name == place.parts[-1]
            stack.callback(os.close, above)
            with os.scandir(above) as entries:
                names = [entry.name for entry in islice(entries, 2)]
            if names != [only]:
                return not names
    return True


def _open_to_list(name: str, folder: int, *, insists: bool) -> int:
    """A folder in another one; where that is forbidden, it may be allowed first."""
    try:
        return os.open(name, _READABLE | os.O_NOFOLLOW, dir_fd=folder)
    except PermissionError:
        if not insists:
            raise
        make_accessible(name, folder)
        return os.open(name, _READABLE | os.O_NOFOLLOW, dir_fd=folder)


def _is_moved(name: str, folder: int, aside: str, trash: int) -> bool:
    """Put a folder into the trash, if that can be done.

    It cannot when it is on another disk or mounted there, and when a full disk has no room.
    """
    for _ in range(2):
        try:
            os.rename(name, aside, src_dir_fd=folder, dst_dir_fd=trash)
        except PermissionError:  # a folder that is moved to another one has to be writable
            with contextlib.suppress(OSError):
                make_accessible(name, folder)
        except OSError:
            return False
        else:
            return True
    return False


def _mode(name: str, folder: int) -> int | None:
    """The mode of an entry; None when there is none."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _listed(folder: int) -> Iterator[Iterator[os.DirEntry[str]]]:
    """The entries of a folder that was opened as a passage."""
    readable = os.open(".", _READABLE, dir_fd=folder)
    try:
        with os.scandir(readable) as entries:
            yield entries
    finally:
        os.close(readable)


def _waits() -> int:
    """How often this thread has waited for something so far."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def _hint() -> str:
    return f"the user of gc (uid {os.geteuid()}) needs write permission there"
