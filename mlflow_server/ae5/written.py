"""Files that appear whole, or not at all."""

import contextlib
import os
from pathlib import Path
from tempfile import NamedTemporaryFile


def write_whole(path: Path, content: bytes, mode: int) -> None:
    """Write a file in one step; what was there stays until then.

    Args:
        path: Of the file; its folder is there.
        content: All of it.
        mode: Who may do what with it; nobody else may before it is there.

    Raises:
        OSError: It cannot be written; nothing is left.
    """
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(mode)
            Path(file.name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(file.name).unlink()
            raise
