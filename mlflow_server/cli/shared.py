"""What every command shares: options, the context, running one and rendering its report."""

import functools
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from mlflow_server.errors import ExitCode
from mlflow_server.platform import PlatformFlags
from mlflow_server.report import Item, Report, Status
from mlflow_server.settings.load import LoadedSettings, load_settings
from mlflow_server.settings.model import Definition, iter_definitions

F = TypeVar("F", bound=Callable[..., Any])

_MARKS = {Status.OK: "ok", Status.WARNING: "warn", Status.FAILED: "FAIL", Status.SKIPPED: "skip"}
_COLOURS = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILED: "red", Status.SKIPPED: ""}


@dataclass
class Context:
    """What the common options say, wherever on the command line they stood.

    Args:
        platform: Flags of the platform, taken off the command line before click saw it.
        json: One JSON document on stdout instead of text.
        log_format: `text` or `json` when given, else the setting decides.
        verbosity: -1 quiet, 0 normal, 1 and 2 more and more.
        color: `auto`, `always` or `never`.
        debug: Show tracebacks.
        command: The command being run, for its report.
        started_at: When.
        settings: Once loaded.
        exit_code: What the process will end with, once that is known.
        typed: Names of the fields above that were options; variables do not change those.
    """

    platform: PlatformFlags = field(default_factory=PlatformFlags)
    json: bool = False
    log_format: str | None = None
    verbosity: int = 0
    color: str = "auto"
    debug: bool = False
    command: str = ""
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    settings: LoadedSettings | None = None
    exit_code: int = 0
    typed: set[str] = field(default_factory=set)

    def wants_color(self) -> bool:
        """Colours only for people: a terminal, unless told otherwise by option or environment."""
        if self.color != "auto":
            return self.color == "always"
        if os.environ.get("NO_COLOR"):
            return False
        if os.environ.get("FORCE_COLOR"):
            return True
        return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


pass_context = click.make_pass_decorator(Context, ensure=True)


def common_options(function: F) -> F:
    """Options that every command has, before or after its name."""

    def remember(
        name: str, fixed: object = None
    ) -> Callable[[click.Context, click.Parameter, Any], None]:
        def callback(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
            context = ctx.ensure_object(Context)
            source = ctx.get_parameter_source(parameter.name or "")
            if value in (None, False, 0):
                return
            if source is ParameterSource.COMMANDLINE:
                context.typed.add(name)
            elif name in context.typed:
                return  # an option before the command beats a variable, too
            setattr(context, name, value if fixed is None else fixed)

        return callback

    options: list[Callable[[F], F]] = [
        _common_option(
            "--json", remember("json"), "Print one JSON document on stdout.", is_flag=True
        ),
        _common_option(
            "--log-format",
            remember("log_format"),
            "Log lines for people or machines.",
            type=click.Choice(["text", "json"]),
            envvar=None,  # a setting: settings.load reads the variable and knows its source
        ),
        _common_option(
            "-v/--verbose",
            remember("verbosity"),
            "More log lines; twice for those of libraries.",
            count=True,
        ),
        _common_option(
            "-q/--quiet", remember("verbosity", -1), "Only warnings and errors.", is_flag=True
        ),
        _common_option(
            "--color",
            remember("color"),
            "Colours; auto looks at the terminal, NO_COLOR and FORCE_COLOR.",
            type=click.Choice(["auto", "always", "never"]),
        ),
        _common_option(
            "--debug", remember("debug"), "Show the traceback of an error.", is_flag=True
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def _common_option(
    names: str, callback: Callable[..., None], text: str, **attributes: Any
) -> Callable[[F], F]:
    """An option whose value goes into the context."""
    return own_option(names, text, **{"expose_value": False, "callback": callback, **attributes})


def own_option(
    names: str, text: str, variable: str | None = None, **attributes: Any
) -> Callable[[F], F]:
    """An option that is no setting, with a variable named after it.

    Args:
        names: Its spellings, between slashes; the last one is the long one.
        text: What it does.
        variable: Another name for its variable: one that MLflow knows.
        attributes: Of `click.option`.
    """
    spellings = names.split("/")
    name = spellings[-1].removeprefix("--").replace("-", "_").upper()
    variable = variable or f"TRACKING_SERVER_{name}"
    told = {"envvar": variable, "help": f"{text} [env: {variable}]"}
    return click.option(*spellings, **{**told, **attributes})


@functools.cache
def _definitions() -> Mapping[str, Definition]:
    return {definition.setting.name: definition for definition in iter_definitions()}


def setting_options(*names: str) -> Callable[[F], F]:
    """Options for settings, by setting name; their texts reach the command as `options`.

    Values stay text: `settings.py` judges them like those from every other source.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            given = {name: kwargs.pop(_parameter(name)) for name in names}
            kwargs["options"] = {name: text for name, text in given.items() if text is not None}
            return function(*args, **kwargs)

        decorated: Any = wrapper
        for name in reversed(names):
            decorated = _setting_option(_definitions()[name])(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def _parameter(name: str) -> str:
    return name.lower()


def _setting_option(definition: Definition) -> Callable[[Any], Any]:
    setting = definition.setting
    if setting.option is None:
        raise ValueError(f"{setting.name} has no option")
    default = definition.default_text
    text = f"{setting.meaning} [env: {setting.name}]" + (
        f" [default: {default}]" if default else ""
    )
    if isinstance(definition.default, bool):
        flags = f"{setting.option}/--no-{setting.option.removeprefix('--')}"

        def as_text(_ctx: click.Context, _parameter: click.Parameter, value: bool | None) -> Any:
            return None if value is None else str(value).lower()

        return click.option(
            flags, _parameter(setting.name), default=None, callback=as_text, help=text
        )
    metavar = "URI" if "URI" in setting.name else "TEXT"
    return click.option(setting.option, _parameter(setting.name), metavar=metavar, help=text)


def load(context: Context, options: Mapping[str, str] | None = None) -> LoadedSettings:
    """Load the settings of a command and set up its logging accordingly."""
    from mlflow_server.log import configure_logging

    given = dict(options or {})
    if context.log_format:
        given["TRACKING_SERVER_LOG_FORMAT"] = context.log_format
    loaded = load_settings(options=given, platform=context.platform)
    context.settings = loaded
    configure_logging(
        log_format=loaded.settings.log.format,
        verbosity=context.verbosity,
        secrets=loaded.secret_values,
    )
    return loaded


def make_report(
    context: Context,
    items: Iterable[Item] = (),
    *,
    exit_code: ExitCode = ExitCode.OK,
    warnings: Iterable[str] = (),
    data: Mapping[str, Any] | None = None,
) -> Report:
    """The report of the command that is running, finished now."""
    return Report(
        command=context.command,
        started_at=context.started_at,
        finished_at=datetime.now(UTC),
        exit_code=exit_code,
        items=tuple(items),
        warnings=tuple(warnings),
        data=data or {},
    )


def echo_items(context: Context, report: Report) -> None:
    """Print a report's items as text, one a line with its fix below, and a total at the end."""
    color = context.wants_color()
    width = max((len(item.name) for item in report.items), default=0)
    for item in report.items:
        mark = click.style(f"{_MARKS[item.status]:<4}", fg=_COLOURS[item.status] or None)
        click.echo(f"{mark} {item.name:<{width}}  {item.detail}", color=color)
        if item.fix:
            click.echo(f"{'':5}{'':{width}}  fix: {item.fix}", color=color)
    counts = ", ".join(f"{count} {status}" for status, count in report.counts.items() if count)
    click.echo(f"{len(report.items)} checks: {counts}", color=color)


def finish(context: Context, report: Report, render: Callable[[Context, Report], None]) -> None:
    """Print a report in the form that was asked for and end with its exit code."""
    context.exit_code = int(report.exit_code)
    if context.json:
        click.echo(report.as_json())
    else:
        render(context, report)
    raise SystemExit(int(report.exit_code))


@contextmanager
def stop_on_sigterm() -> Iterator[None]:
    """End by an exception on SIGTERM, so that transactions and locks are given back in order."""

    def stop(_number: int, _frame: object) -> None:
        click.echo("Stopped.", err=True)
        raise SystemExit(int(ExitCode.TERMINATED))

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Formatter(click.HelpFormatter):
    """Puts explanations below what they explain where a name in them would not fit beside it."""

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        """Options or commands with their explanations."""
        rows = list(rows)
        beside = self.width - self.current_indent - col_max - col_spacing
        if max((len(word) for _, text in rows for word in text.split()), default=0) <= beside:
            super().write_dl(rows, col_max, col_spacing)
            return
        for term, text in rows:
            self.write(f"{'':{self.current_indent}}{term}\n")
            with self.indentation(), self.indentation():
                self.write_text(text)
