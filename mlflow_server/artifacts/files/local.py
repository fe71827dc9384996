"""The files of a folder of a local disk."""

import contextlib
import os
import stat
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mlflow_server.artifacts.content import Source, chunks_of
from mlflow_server.artifacts.files.disk_failures import explain
from mlflow_server.artifacts.files.files import File, Folder, OnSkip, check_folder, check_path
from mlflow_server.artifacts.files.folders import (
    Passages,
    make_folder,
    open_folder,
    open_to_list,
    opened,
    sync_folder,
)
from mlflow_server.artifacts.files.local_reader import LocalReader, file_of, read_whole, stamp_of
from mlflow_server.artifacts.removal.local import TRASH
from mlflow_server.artifacts.removal.tree import purge
from mlflow_server.artifacts.shown import shown
from mlflow_server.errors import BadInputError, ChangedError, OpsError

# Without O_NONBLOCK a named pipe would be waited for.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# What is being written, and what a killed writer has left, is called so and listed nowhere.
_ASIDE = ".mlflow-server-part-"


class LocalFiles:
    """See `Files`. No state is kept, and no link is followed but one to the root.

    Args:
        root: The folder; it comes into being with the first file.
        subject: How messages begin.
    """

    def __init__(self, root: Path, subject: str) -> None:
        self.root = root
        self._root = os.fspath(root)
        self._subject = subject
        self._local = threading.local()

    def walk(self, below: str = "", *, on_skip: OnSkip | None = None) -> Iterator[File]:
        """See `Files`."""
        for folder in self.walk_folders(below, on_skip=on_skip):
            yield from folder.files

    def walk_folders(self, below: str = "", *, on_skip: OnSkip | None = None) -> Iterator[Folder]:
        """See `Files`."""
        self._passages.forget()
        waiting = [iter([check_folder(below)])]
        while waiting:
            path = next(waiting[-1], None)
            if path is None:
                waiting.pop()
                continue
            found, folders = self._list(path, on_skip)
            if found:
                yield Folder(path, [name for name, _ in found], [file for _, file in found])
            prefix = f"{path}/" if path else ""
            waiting.append(map(prefix.__add__, folders))

    def find(self, path: str) -> File | None:
        """See `Files`."""
        above, _, name = check_path(path).rpartition("/")
        try:
            with opened(self._root, above) as folder:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as err:
            raise self._explain(path, err) from None
        return file_of(path, status) if stat.S_ISREG(status.st_mode) else None

    def folders(self, below: str = "") -> Iterator[str]:
        """See `Files`; sorted."""
        self._passages.forget()
        yield from self._list(check_folder(below), None)[1]

    def open(self, path: str, start: int = 0) -> LocalReader:
        """See `Files`."""
        descriptor = self._open(path)
        try:
            return LocalReader(descriptor, path, start, self._full(path), self._subject)
        except BaseException:
            os.close(descriptor)
            raise

    def read(self, path: str) -> bytes:
        """See `Files`."""
        above, _, name = check_path(path).rpartition("/")
        try:
            descriptor = os.open(name, _READ, dir_fd=self._passages.find(above))
            try:
                return read_whole(descriptor, self._full(path), self._subject)
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as err:
            raise self._explain(path, err) from None

    def read_listed(self, folder: str, name: str, file: File) -> bytes:
        """The whole content of a small file that a walk has found, and that is as it was then.

        Args:
            folder: What `walk_folders` said.
            name: The same.
            file: The same.

        Raises:
            ChangedError: It is another one by now.
            OpsError: It cannot be read.
        """
        try:
            descriptor = os.open(name, _READ, dir_fd=self._passages.find(folder))
            try:
                content = os.read(descriptor, file.size_bytes + 1)
                now = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        except OSError as err:
            raise self._explain(file.path, err) from None
        if len(content) != file.size_bytes or stamp_of(now) != file.stamp:
            raise ChangedError(f"{self._show(file.path)} was changed while it was read")
        return content

    def write(
        self, path: str, source: Source, size_bytes: int | None = None, *, durable: bool = False
    ) -> None:
        """See `Files`."""
        above, _, name = check_path(path).rpartition("/")
        if "//" in path:
            raise BadInputError(f"{self._show(path)}: a folder without a name cannot be on a disk")
        chunks = chunks_of(source, size_bytes, self._show(path))
        aside = f"{_ASIDE}{uuid.uuid4().hex}"
        with contextlib.ExitStack() as stack:
            with self._writing(path):
                folder = make_folder(self._root, above, durable=durable)
                stack.callback(os.close, folder)
                descriptor = os.open(aside, _WRITE, 0o666, dir_fd=folder)
            try:
                self._fill(descriptor, path, chunks, durable=durable)
                with self._writing(path):
                    os.rename(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(aside, dir_fd=folder)
                raise
            if durable:
                with self._writing(path):
                    sync_folder(folder)

    def remove(self, paths: Sequence[str]) -> None:
        """See `Files`."""
        failures: list[OpsError] = []
        for path in paths:
            above, _, name = check_path(path).rpartition("/")
            try:
                with opened(self._root, above) as folder:
                    os.unlink(name, dir_fd=folder)
            except (FileNotFoundError, NotADirectoryError):
                pass
            except (OSError, ValueError) as err:
                failures.append(self._explain(path, err, writes=True))
        if failures:
            raise failures[0]

    def remove_tree(self, below: str) -> None:
        """See `Files`."""
        above, _, name = check_path(below).rpartition("/")
        self._passages.forget()
        try:
            with opened(self._root, above) as folder:
                purge(name, folder)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except (OSError, ValueError) as err:
            raise self._explain(below, err, writes=True) from None

    def remove_leftovers(self) -> None:
        """Remove what killed writers have left, in all folders; nobody may be writing meanwhile.

        Raises:
            OpsError: It cannot be removed.
        """
        self._passages.forget()
        waiting = [""]
        while waiting:
            above = waiting.pop()
            prefix = f"{above}/" if above else ""
            left = []
            try:
                with self._entries(above) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(prefix + entry.name)
                        elif entry.name.startswith(_ASIDE):
                            left.append(prefix + entry.name)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, ValueError) as err:
                raise self._explain(above, err) from None
            self.remove(left)

    def close(self) -> None:
        """See `Files`; what other threads keep open goes with them."""
        self._passages.forget()

    @property
    def _passages(self) -> Passages:
        """This thread's."""
        try:
            found: Passages = self._local.passages
        except AttributeError:
            found = self._local.passages = Passages(self._root)
        return found

    def _list(
        self, folder: str, on_skip: OnSkip | None
    ) -> tuple[list[tuple[str, File]], list[str]]:
        """The files in a folder, and the names of the folders in it; sorted."""
        files: list[tuple[str, File]] = []
        folders: list[str] = []
        prefix = f"{folder}/" if folder else ""
        try:
            with self._entries(folder) as entries:
                for entry in entries:
                    name = entry.name
                    if entry.is_file(follow_symlinks=False):
                        try:  # a context manager would take as long as the rest
                            status = entry.stat(follow_symlinks=False)
                        except FileNotFoundError:  # gone meanwhile
                            continue
                        if not name.startswith(_ASIDE):
                            files.append((name, file_of(prefix + name, status)))
                    elif entry.is_dir(follow_symlinks=False):
                        if prefix or name != TRASH:
                            folders.append(name)
                    elif on_skip is not None:
                        kind = "a symbolic link" if entry.is_symlink() else "no file and no folder"
                        message = f"{self._show(prefix + name)} is {kind}"
                        on_skip(prefix + name, BadInputError(message))
        except (FileNotFoundError, NotADirectoryError):
            return [], []
        except (OSError, ValueError) as err:
            failure = self._explain(folder, err)
            if on_skip is None:
                raise failure from None
            on_skip(folder, failure)
        files.sort()
        folders.sort()
        return files, folders

    @contextlib.contextmanager
    def _entries(self, folder: str) -> Iterator[Iterator[os.DirEntry[str]]]:
        listed = open_to_list(self._passages.find(folder))
        try:
            with os.scandir(listed) as entries:
                yield entries
        finally:
            os.close(listed)

    def _open(self, path: str) -> int:
        above, _, name = check_path(path).rpartition("/")
        try:
            folder = open_folder(self._root, above)
            try:
                return os.open(name, _READ, dir_fd=folder)
            finally:
                os.close(folder)
        except (OSError, ValueError) as err:
            raise self._explain(path, err) from None

    def _fill(self, descriptor: int, path: str, chunks: Iterable[bytes], *, durable: bool) -> None:
        try:
            for chunk in chunks:
                with self._writing(path):
                    left = memoryview(chunk)
                    while left:
                        left = left[os.write(descriptor, left) :]
            if durable:
                with self._writing(path):
                    os.fsync(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        with self._writing(path):  # some network disks say only now that they are full
            os.close(descriptor)

    @contextlib.contextmanager
    def _writing(self, path: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as err:
            raise self._explain(path, err, writes=True) from None

    def _explain(self, path: str, err: OSError | ValueError, *, writes: bool = False) -> OpsError:
        return explain(self._subject, self._full(path), err, writes=writes)

    def _show(self, path: str) -> str:
        return f"{self._subject}: {shown(self._full(path))}"

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root
