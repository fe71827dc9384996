"""How far a command is: a bar on a terminal, a line now and then in a log."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mlflow_server.cli.shared import Context

log = logging.getLogger(__name__)

_LINE_EVERY_S = 5.0


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
    elif sys.stderr.isatty() and not context.json:
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
