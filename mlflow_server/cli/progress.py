"""How far a command is: a bar on a terminal, a line now and then in a log."""

import logging
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from mlflow_server.cli.shared import Context
from mlflow_server.units import render_size

log = logging.getLogger(__name__)

_LINE_EVERY_S = 5.0
_BAR_EVERY_S = 0.05


def is_watched(context: Context) -> bool:
    """True when somebody sits before it."""
    return context.verbosity >= 0 and sys.stderr.isatty() and not context.json


@contextmanager
def show_progress(context: Context, titles: tuple[str, ...]) -> Iterator[Callable[..., None]]:
    """Show counts while something is being done.

    Args:
        context: Says whether anything is to be seen.
        titles: Of the counts, in order.

    Yields:
        What to call with the total and the counts so far; may be called often.
    """
    if context.verbosity < 0:
        yield lambda total, *counts: None
    elif is_watched(context):
        with _bars(context, titles) as update:
            yield update
    else:
        yield _lines(titles)


@contextmanager
def _bars(context: Context, titles: tuple[str, ...]) -> Iterator[Callable[..., None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeElapsedColumn as Elapsed

    console = Console(stderr=True, no_color=not context.wants_color())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Elapsed())
    with Progress(*columns, console=console, transient=True) as bars:
        tasks = [bars.add_task(title, total=None) for title in titles]

        def update(total: int, *counts: int) -> None:
            for task, count in zip(tasks, counts, strict=True):
                bars.update(task, completed=count, total=max(total, count))

        yield update


def _lines(titles: tuple[str, ...]) -> Callable[..., None]:
    told_at = time.monotonic()

    def update(total: int, *counts: int) -> None:
        nonlocal told_at
        if time.monotonic() - told_at < _LINE_EVERY_S:
            return
        told_at = time.monotonic()
        parts = (
            f"{title} {count} of {max(total, count)}"
            for title, count in zip(titles, counts, strict=True)
        )
        log.info("%s", ", ".join(parts))

    return update


@contextmanager
def show_phases(context: Context, in_bytes: Collection[str]) -> Iterator[Callable[..., None]]:
    """Show how far each of several things is that are done one after the other.

    Args:
        context: Says whether anything is to be seen.
        in_bytes: Names of those that are measured in bytes.

    Yields:
        What to call with the name of the phase, how far it is, and how far it is at the end or
        None; may be called often.
    """
    if context.verbosity < 0:
        yield lambda phase, done, total: None
    elif is_watched(context):
        with _phase_bars(context, in_bytes) as update:
            yield update
    else:
        yield _phase_lines(in_bytes)


@contextmanager
def _phase_bars(context: Context, in_bytes: Collection[str]) -> Iterator[Callable[..., None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.progress import TimeElapsedColumn as Elapsed

    console = Console(stderr=True, no_color=not context.wants_color())
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        Elapsed(),
        TimeRemainingColumn(),
    )
    bars = Progress(*columns, console=console, transient=True)
    tasks: dict[str, Any] = {}
    shown_at = 0.0

    def update(phase: str, done: int, total: int | None) -> None:
        nonlocal shown_at
        if phase not in tasks:
            bars.start()  # only once there is something to show
            tasks[phase] = bars.add_task(phase, total=None, amount="")
        elif time.monotonic() - shown_at < _BAR_EVERY_S:
            return
        shown_at = time.monotonic()
        amount = _amount(done, total, is_bytes=phase in in_bytes)
        bars.update(tasks[phase], completed=done, total=total, amount=amount)

    try:
        yield update
    finally:
        if tasks:
            bars.stop()


def _phase_lines(in_bytes: Collection[str]) -> Callable[..., None]:
    started: dict[str, float] = {}
    told_at = time.monotonic()

    def update(phase: str, done: int, total: int | None) -> None:
        nonlocal told_at
        now = time.monotonic()
        begun = started.setdefault(phase, now)
        if now - told_at < _LINE_EVERY_S:
            return
        told_at = now
        text = f"{phase} {_amount(done, total, is_bytes=phase in in_bytes)}"
        if total and 0 < done < total:
            text += f", about {(now - begun) * (total - done) / done:.0f} s left"
        log.info("%s", text)

    return update


def _amount(done: int, total: int | None, *, is_bytes: bool) -> str:
    shown = [render_size(n) if is_bytes else str(n) for n in (done, total) if n is not None]
    return " of ".join(shown)
