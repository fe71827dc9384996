"""Artifacts in tar files: many small ones together, a large one alone."""

import contextlib
import hashlib
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from mlflow_server.backup.behind import Behind

PACK_BYTES = 64 * 1024 * 1024
_BLOCK = 512
_END = b"\0" * 2 * _BLOCK
_PADDING = b"\0" * _BLOCK
# Larger sizes do not fit the eleven octal digits of the header (POSIX ustar).
_LARGEST_OCTAL = 8**11 - 1
# Of small contents, what is written at once.
_WRITE_BYTES = 1024 * 1024
# To hash less takes no longer than to tell somebody else.
_WORTH_BYTES = 64 * 1024


class Pack(NamedTuple):
    """A finished pack.

    Args:
        file: Relative to the folder of packs.
        size_bytes: How long it is.
        sha256: Of all of it, hexadecimal.
    """

    file: str
    size_bytes: int
    sha256: str


class PackWriter:
    """Puts contents into packs, one after the other.

    A pack is written to a file of its own name in a folder and handed over when it is full.

    Args:
        backup_id: Whose packs they are.
        folder: Where they are written.
        keep: Takes a finished file to where the pack of that name belongs.
        pack_bytes: How large a pack gets before the next one is begun.
    """

    def __init__(
        self,
        backup_id: str,
        folder: Path,
        keep: Callable[[Path, str], None],
        pack_bytes: int = PACK_BYTES,
    ) -> None:
        self._backup_id = backup_id
        self._folder = folder
        self._keep = keep
        self._pack_bytes = pack_bytes
        self._open: _OpenPack | None = None
        self._writing = Behind()
        self._keeping = Behind()
        self.finished: list[Pack] = []

    def add(self, chunks: Iterable[bytes], size_bytes: int) -> tuple[str, int]:
        """Store a content.

        Args:
            chunks: The content, `size_bytes` long in all. When reading it fails, or it turns out
                to be of another length, the pack is as it was before.
            size_bytes: How long it is.

        Returns:
            Which pack it is in, and where in it.

        Raises:
            ValueError: It is of another length.
        """
        pack = self._pack_for(size_bytes)
        return pack.name, pack.add(chunks, size_bytes)

    def add_whole(self, content: bytes) -> tuple[str, int]:
        """Store a small content; see `add`."""
        pack = self._pack_for(len(content))
        return pack.name, pack.add_whole(content)

    def close(self) -> list[Pack]:
        """Finish the last pack.

        Returns:
            All of them.
        """
        try:
            if self._open is not None:
                self._finish(self._open)
            self._keeping.wait()
        finally:
            self._writing.close()
            self._keeping.close()
        return self.finished

    def _pack_for(self, size_bytes: int) -> "_OpenPack":
        pack = self._open
        if pack is not None and pack.size_bytes + size_bytes > self._pack_bytes:
            self._finish(pack)
            pack = None
        if pack is None:
            name = f"{self._backup_id}/{len(self.finished) + 1:05d}.tar"
            pack = self._open = _OpenPack(name, self._folder / Path(name).name, self._writing)
        return pack

    def _finish(self, pack: "_OpenPack") -> None:
        self._open = None
        self.finished.append(pack.finish())
        # Where the disk or an object store is waited for, the next pack is begun meanwhile.
        self._keeping.do(self._keep, pack.path, pack.name)


class _OpenPack:
    """A tar file that is being written. Its members are numbered.

    It is hashed and written in a thread: so a large content is hashed by two processors.
    """

    def __init__(self, name: str, path: Path, writing: Behind) -> None:
        self.name = name
        self.path = path
        self.size_bytes = 0
        self._members = 0
        self._digest = hashlib.sha256()
        self._file = path.open("wb", buffering=0)
        self._writing = writing
        # To write each of many small ones, and to hash it, would take longer than to read it.
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0

    def add(self, chunks: Iterable[bytes], size_bytes: int) -> int:
        self._write_waiting()
        self._writing.wait()
        before = self.size_bytes, self._digest.copy()
        try:
            self._write(_header(self._members + 1, size_bytes))
            offset = self.size_bytes
            for chunk in chunks:
                self._write(chunk)
            if self.size_bytes - offset != size_bytes:
                raise ValueError("the content is of another length")
            self._write(b"\0" * (-size_bytes % _BLOCK))
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one that is told
                self._writing.wait()
            self.size_bytes, self._digest = before
            self._file.seek(self.size_bytes)
            self._file.truncate()
            raise
        self._members += 1
        return offset

    def add_whole(self, content: bytes) -> int:
        self._members += 1
        size_bytes, header = len(content), _header(self._members, len(content))
        offset = self.size_bytes + len(header)
        rest = -size_bytes % _BLOCK
        self._waiting += (header, content, _PADDING[:rest])
        length = len(header) + size_bytes + rest
        self.size_bytes += length
        self._waiting_bytes += length
        if self._waiting_bytes >= _WRITE_BYTES:
            self._write_waiting()
        return offset

    def finish(self) -> Pack:
        self._write_waiting()
        self._write(_END)
        self._writing.wait()
        self._file.close()
        return Pack(self.name, self.size_bytes, self._digest.hexdigest())

    def _write_waiting(self) -> None:
        content = b"".join(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        self._write_out(content)

    def _write(self, content: bytes) -> None:
        self._write_out(content)
        self.size_bytes += len(content)

    def _write_out(self, content: bytes) -> None:
        if len(content) < _WORTH_BYTES:
            self._writing.wait()
            self._put(content)
        else:
            self._writing.do(self._put, content)

    def _put(self, content: bytes) -> None:
        self._digest.update(content)
        left = memoryview(content)
        while left:
            left = left[self._file.write(left) :]


def _header(number: int, size_bytes: int) -> bytes:
    """The header of a member.

    tarfile takes longer for it than the rest takes for a small file, so that its header is made
    once, and the name, the size and the checksum are put in.
    """
    if size_bytes > _LARGEST_OCTAL:
        member = tarfile.TarInfo(f"{number:010d}")
        member.size = size_bytes
        return member.tobuf(tarfile.GNU_FORMAT)
    name, size = b"%010d" % number, b"%011o" % size_bytes
    checksum = _TEMPLATE_SUM + sum(name) + sum(size)
    return b"%s%s%s%s%06o%s" % (
        name, _TEMPLATE[10:124], size, _TEMPLATE[135:148], checksum, _TEMPLATE[154:]
    )  # fmt: skip


# The name in the first 10 bytes, the size at 124, the checksum at 148 (eight blanks when summed).
_TEMPLATE = tarfile.TarInfo("0" * 10).tobuf(tarfile.USTAR_FORMAT)
_TEMPLATE_SUM = sum(_TEMPLATE[10:124]) + sum(_TEMPLATE[135:148]) + 8 * 32 + sum(_TEMPLATE[156:])
