"""A terminal of its own for a command."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path


def run_on_terminal(
    command: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    columns: int = 100,
    timeout_s: float = 60.0,
    typed: bytes = b"",
) -> tuple[int, str]:
    """Run a command whose input, output and errors are one terminal.

    Args:
        command: Program and arguments.
        cwd: Folder to run it in.
        environment: All of it.
        columns: How wide the terminal is.
        timeout_s: How long it may take to end after its last word.
        typed: What somebody types, once the first word is there.

    Returns:
        Its exit code, and all that the terminal was sent.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=dict(environment),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        # Or it could not ask for a password.
        preexec_fn=partial(fcntl.ioctl, slave, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    try:
        shown = b"".join(_pieces(master, typed))
        code = process.wait(timeout_s)
    finally:
        process.kill()
        process.wait()
        os.close(master)
    return code, shown.decode("utf-8", errors="replace").replace("\r\n", "\n")


def _pieces(master: int, typed: bytes) -> list[bytes]:
    pieces: list[bytes] = []
    while True:
        try:
            piece = os.read(master, 65_536)
        except OSError as err:
            if err.errno != errno.EIO:  # Linux: the other side has been closed
                raise
            return pieces
        if not piece:
            return pieces
        if typed and not pieces:
            os.write(master, typed)
        pieces.append(piece)
