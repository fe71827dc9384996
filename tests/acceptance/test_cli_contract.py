"""What every command of ours keeps to, present and to come: 28 rules, each a test of that name.

A new command takes part by itself. What it needs is a line in `RUNS` that says how to run it so
that nothing happens; where a rule cannot apply to it, `NOT_APPLICABLE` says why.

Most command lines run in this process, which is fifty times faster (`inside`); in one of their own
run those for which signals, pipes, terminals, locales or imports matter (`execute`).
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import os
import re
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import click
import pytest

from mlflow_server import __version__
from mlflow_server.cli.help import TOPICS
from mlflow_server.cli.main import COMMANDS, PROGRAM, cli, main
from mlflow_server.cli.shared import Context
from mlflow_server.errors import ExitCode
from mlflow_server.settings.model import Definition, iter_definitions
from tests.support.programs import REPOSITORY, clean_environment, free_port
from tests.support.terminal import run_on_terminal

Name = tuple[str, ...]
SECRET = "S3cr3tMarker"
# Wide: these tests run beside others on two cores.
TIMEOUT_S = 120.0


# --- The commands -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """How to run a command so that it ends by itself and changes nothing.

    Args:
        arguments: After its name.
        exit_code: What it then ends with.
        coloured: Its text has colours on a terminal.
        total: The word that its last line counts; None when it prints no list.
        hangs_on: Arguments that make it wait for a silent server at `{port}`; None when it ends at
            once, whatever happens.
        interrupted: Exit code after Ctrl-C.
    """

    arguments: tuple[str, ...] = ()
    exit_code: ExitCode = ExitCode.OK
    coloured: bool = False
    total: str | None = None
    hangs_on: tuple[str, ...] | None = None
    interrupted: ExitCode = ExitCode.INTERRUPTED


_SILENT = "postgresql+psycopg2://u:p@127.0.0.1:{port}/db"
# {free} is a free port of the machine.
RUNS: dict[Name, Run] = {
    # A server does not end by itself; one that cannot start does, and has changed nothing.
    ("serve",): Run(
        ("--port", "{free}", "--artifacts-destination", "/dev/null"),
        exit_code=ExitCode.SETTINGS,
        hangs_on=("--port", "{free}", "--backend-store-uri", _SILENT),
        interrupted=ExitCode.OK,
    ),
    ("doctor",): Run(
        ("--port", "{free}"),
        coloured=True,
        total="checks",
        hangs_on=("--port", "{free}", "--backend-store-uri", _SILENT),
    ),
    # There is no database in an empty folder, and none is made.
    ("gc",): Run(
        ("--dry-run",),
        exit_code=ExitCode.UNAVAILABLE,
        hangs_on=("--dry-run", "--backend-store-uri", _SILENT),
    ),
    ("backup", "create"): Run(
        ("--to", "backups", "--dry-run"),
        exit_code=ExitCode.UNAVAILABLE,
        hangs_on=("--to", "backups", "--dry-run", "--backend-store-uri", _SILENT),
    ),
    ("backup", "list"): Run(("backups",)),
    ("backup", "verify"): Run(("backups/20261121T134115Z",), exit_code=ExitCode.UNAVAILABLE),
    ("backup", "prune"): Run(("backups", "--keep-last", "1", "--dry-run")),
    ("restore",): Run(("backups/20261121T134115Z", "--dry-run"), exit_code=ExitCode.UNAVAILABLE),
    ("migrate",): Run(
        ("--to-backend-store-uri", "sqlite:///new.db", "--dry-run"),
        exit_code=ExitCode.UNAVAILABLE,
        hangs_on=(
            *("--to-backend-store-uri", "sqlite:///new.db", "--dry-run"),
            *("--backend-store-uri", _SILENT),
        ),
    ),
    ("upgrade",): Run(
        ("--dry-run",),
        exit_code=ExitCode.UNAVAILABLE,
        hangs_on=("--dry-run", "--backend-store-uri", _SILENT),
    ),
    ("ae5", "build"): Run(("--dry-run",), exit_code=ExitCode.UNAVAILABLE),
    ("ae5", "upload"): Run(("--dry-run",), exit_code=ExitCode.UNAVAILABLE),
    ("ae5", "release"): Run(("--dry-run",), exit_code=ExitCode.UNAVAILABLE),
    ("ae5", "rollback"): Run(("--dry-run",), exit_code=ExitCode.UNAVAILABLE),
    ("ae5", "deploy"): Run(("--dry-run",), exit_code=ExitCode.UNAVAILABLE),
    ("ae5", "url"): Run(("--dry-run",), exit_code=ExitCode.UNAVAILABLE),
    ("ae5", "token"): Run(("--dry-run",), exit_code=ExitCode.UNAVAILABLE),
    ("ae5", "restart"): Run(("--dry-run",), exit_code=ExitCode.UNAVAILABLE),
    ("ae5", "share"): Run(("--everyone", "--dry-run"), exit_code=ExitCode.UNAVAILABLE),
    ("ae5", "status"): Run(exit_code=ExitCode.UNAVAILABLE),
    ("ae5", "retire"): Run(("--dry-run",), exit_code=ExitCode.UNAVAILABLE),
    ("ae5", "schedule", "gc"): Run(
        ("--cron", "0 * * * *", "--dry-run"), exit_code=ExitCode.UNAVAILABLE
    ),
    ("ae5", "schedule", "backup"): Run(
        ("--cron", "0 3 * * *", "--dry-run"), exit_code=ExitCode.UNAVAILABLE
    ),
    ("ae5", "schedule", "list"): Run(exit_code=ExitCode.UNAVAILABLE),
    ("ae5", "run"): Run(("doctor", "--dry-run"), exit_code=ExitCode.UNAVAILABLE),
    ("ae5", "secrets", "list"): Run(exit_code=ExitCode.UNAVAILABLE),
    ("ae5", "secrets", "check"): Run(exit_code=ExitCode.UNAVAILABLE),
    ("ae5", "secrets", "set"): Run(
        ("--values-file", "missing", "--dry-run"), exit_code=ExitCode.UNAVAILABLE
    ),
    ("settings",): Run(coloured=True, total="settings"),
    ("help",): Run(("exit-codes",)),
    ("completion",): Run(("bash",)),
}

# Rule -> command -> why it cannot keep to it. Nothing else is left out.
NOT_APPLICABLE: dict[str, dict[Name, str]] = {
    "settings_error": {
        ("help",): "reads no settings, so that it explains them when they are wrong",
        ("completion",): "reads no settings: it runs at every start of a shell",
    },
    "help_of_command": {
        ("settings",): "the topic of that name explains their sources",
    },
}

# Every other command changes data, and has --dry-run.
HAS_NOTHING_TO_PLAN: dict[Name, str] = {
    ("serve",): "a server has no plan of changes; doctor looks without starting it",
    ("doctor",): "only looks",
    ("settings",): "only looks",
    ("backup", "list"): "only looks",
    ("backup", "verify"): "only looks",
    ("ae5", "status"): "only looks",
    ("ae5", "schedule", "list"): "only looks",
    ("ae5", "secrets", "list"): "only looks",
    ("ae5", "secrets", "check"): "only looks",
    ("help",): "only prints",
    ("completion",): "only prints",
}

# Commands that remove or overwrite what cannot be had back ask first, and take --yes for an answer.
ASKS_FOR_CONFIRMATION: set[Name] = {("gc",), ("restore",), ("upgrade",), ("ae5", "retire")}

SECTIONS = {"Run", "Maintain", "Move data", "Access", "Release", "Inspect"}
# A command keeps the help option of the first context it parses in: tests give all the same.
AS_RUN: dict[str, Any] = {"help_option_names": cli.context_settings["help_option_names"]}
COMMON_OPTIONS = ("--json", "--log-format", "--verbose", "--quiet", "--color", "--debug")


def walk(group: click.Group, above: Name = ()) -> Iterator[tuple[Name, click.Command]]:
    """Every command below a group that is no group itself."""
    context = click.Context(group, info_name=PROGRAM)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from walk(command, (*above, name))
        else:
            yield (*above, name), command


FOUND = dict(walk(cli))


def options_of(name: Name) -> list[click.Option]:
    """The options of a command, but for --help."""
    return [param for param in FOUND[name].params if isinstance(param, click.Option)]


def spelling(option: click.Option) -> str:
    """The long name of an option."""
    return next(name for name in option.opts if name.startswith("--"))


def definitions() -> dict[str, Definition]:
    """Settings by name."""
    return {definition.setting.name: definition for definition in iter_definitions()}


def every_command(rule: str = "", **only: bool) -> pytest.MarkDecorator:
    """Parametrise over all commands that a rule applies to, and perhaps some of `Run`'s marks."""
    names = [name for name in FOUND if name not in NOT_APPLICABLE.get(rule, {})]
    for mark, wanted in only.items():
        names = [n for n in names if bool(getattr(RUNS.get(n, Run()), mark)) is wanted]
    return pytest.mark.parametrize("name", names, ids=" ".join)


def every_option() -> pytest.MarkDecorator:
    """Parametrise over all options of all commands, those of the program itself included."""
    pairs: list[tuple[Name, click.Option]] = [
        ((), option) for option in cli.params if isinstance(option, click.Option)
    ]
    pairs += [(name, option) for name in FOUND for option in options_of(name)]
    ids = [" ".join((*name, spelling(option))) for name, option in pairs]
    return pytest.mark.parametrize(("name", "option"), pairs, ids=ids)


# --- Running them -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    """How a command ended.

    Args:
        code: Exit code; negative when a signal ended it.
        out: What it wrote to stdout; on a terminal, to the terminal.
        err: What it wrote to stderr.
        left: Names of what it left in its folder, which was empty.
    """

    code: int
    out: str
    err: str
    left: tuple[str, ...] = ()


def environment(**extra: str) -> dict[str, str]:
    """That of an ordinary terminal, without any setting of ours."""
    dropped = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "LC_ALL", "LC_CTYPE", "LANG", "CI")
    kept = {key: value for key, value in clean_environment().items() if key not in dropped}
    return {**kept, "TERM": "xterm-256color", "LANG": "C.UTF-8", **extra}


def execute(*arguments: str, **extra: str) -> Done:
    """Run one command line in an empty folder, its stdin open and silent."""
    with tempfile.TemporaryDirectory(prefix="contract-") as folder, open_pipe() as stdin:
        done = subprocess.run(
            [sys.executable, "-m", "mlflow_server", *arguments],
            cwd=folder,
            env=environment(**extra),
            stdin=stdin,
            capture_output=True,
            timeout=TIMEOUT_S,
        )
        left = tuple(sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*")))
    out, err = (
        text.decode("utf-8", errors="replace").replace(folder, "FOLDER")
        for text in (done.stdout, done.stderr)
    )
    return Done(done.returncode, out, err, left)


def inside(*arguments: str, **extra: str) -> Done:
    """Run one command line in an empty folder, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as around:
        folder = around.enter_context(tempfile.TemporaryDirectory(prefix="contract-"))
        around.enter_context(logging_restored())
        around.enter_context(contextlib.chdir(folder))
        around.enter_context(mock.patch.dict(os.environ, environment(**extra), clear=True))
        around.enter_context(contextlib.redirect_stdout(out))
        around.enter_context(contextlib.redirect_stderr(err))
        with pytest.raises(SystemExit) as end:
            main(arguments)
        left = tuple(sorted(path.name for path in Path(folder).iterdir()))
    assert isinstance(end.value.code, int)
    return Done(
        end.value.code,
        out.getvalue().replace(folder, "FOLDER"),
        err.getvalue().replace(folder, "FOLDER"),
        left,
    )


@contextlib.contextmanager
def logging_restored() -> Iterator[None]:
    """Whatever a command configures, afterwards logging is as before."""
    root, ours = logging.getLogger(), logging.getLogger("mlflow_server")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        ours.setLevel(levels[1])
        logging.captureWarnings(False)


@contextlib.contextmanager
def open_pipe() -> Iterator[int]:
    """The reading end of a pipe into which nobody writes: who reads it waits for ever."""
    reader, writer = os.pipe()
    try:
        yield reader
    finally:
        os.close(reader)
        os.close(writer)


def filled(arguments: Sequence[str], port: int = 0) -> list[str]:
    """Arguments with `{free}` and `{port}` put in."""
    return [
        text.replace("{free}", str(free_port())).replace("{port}", str(port)) for text in arguments
    ]


def run_of(name: Name) -> Run:
    """How to run a command."""
    if name not in RUNS:
        pytest.fail(f"say in RUNS how `{PROGRAM} {' '.join(name)}` runs without changing anything")
    return RUNS[name]


def ran(name: Name, *options: str, **extra: str) -> Done:
    """Run a command as `RUNS` says, in this process, with further options after it; once."""
    return _ran(name, options, tuple(sorted(extra.items())))


@functools.cache
def _ran(name: Name, options: tuple[str, ...], extra: tuple[tuple[str, str], ...]) -> Done:
    return inside(*name, *filled(run_of(name).arguments), *options, **dict(extra))


@functools.cache
def executed(name: Name) -> Done:
    """Run a command as `RUNS` says, in a process of its own; once."""
    return execute(*name, *filled(run_of(name).arguments))


@functools.cache
def help_of(name: Name, columns: int = 100) -> Done:
    """The help of a command on a terminal of that width."""
    return inside(*name, "--help", COLUMNS=str(columns))


def on_terminal(
    *arguments: str, columns: int = 100, extra: Mapping[str, str] | None = None
) -> Done:
    """Run one command line on a terminal of its own; `out` is all that it showed."""
    with tempfile.TemporaryDirectory(prefix="contract-") as folder:
        code, text = run_on_terminal(
            [sys.executable, "-m", "mlflow_server", *arguments],
            cwd=Path(folder),
            environment=environment(**(extra or {})),
            columns=columns,
            timeout_s=TIMEOUT_S,
        )
    return Done(code, text.replace(folder, "FOLDER"), "")


def document_of(done: Done) -> dict[str, object]:
    """The one JSON document on stdout."""
    document = json.loads(done.out)
    assert isinstance(document, dict)
    return document


ESCAPE = "\x1b["
LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z (DEBUG|INFO|WARNING|ERROR) ", re.MULTILINE)


# --- The tables above ---------------------------------------------------------------------------


def test_every_command_of_the_table_was_found() -> None:
    assert {name[0] for name in FOUND} == {n for commands in COMMANDS.values() for n in commands}


def test_the_exceptions_name_commands_that_exist() -> None:
    named = {name for commands in NOT_APPLICABLE.values() for name in commands}
    named |= set(RUNS) | set(HAS_NOTHING_TO_PLAN) | ASKS_FOR_CONFIRMATION
    assert named - set(FOUND) == set()


@every_command()
def test_a_command_runs_as_told(name: Name) -> None:
    done = executed(name)
    assert done.code == run_of(name).exit_code, done.err


@every_command()
def test_a_command_does_the_same_in_this_process(name: Name) -> None:
    """Else most of these tests would be about something else."""
    assert same(ran(name)) == same(executed(name))


# --- 1 to 5: help -------------------------------------------------------------------------------

SLOW = {"mlflow", "sqlalchemy", "rich", "alembic", "boto3", "gunicorn", "uvicorn", "starlette"}
SLOW |= {"fastapi", "flask", "pandas", "numpy", "prometheus_client", "psycopg", "psycopg2"}
SLOW |= {"requests", "uvloop", "pydantic_settings"}

_MODULES_AFTER_HELP = """
import contextlib, io, json, sys
from mlflow_server.cli.main import main
try:
    with contextlib.redirect_stdout(io.StringIO()):
        main([*sys.argv[1:], "--help"])
except SystemExit as end:
    assert end.code == 0
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.mark.parametrize("name", [(), *FOUND], ids=lambda name: " ".join(name) or PROGRAM)
def test_01_help_is_there_at_once(name: Name) -> None:
    """Processor time: what others do on this machine does not count. About 0.35 s when written."""
    assert any(processor_seconds(*name, "--help") < 1.0 for _ in range(3))


def processor_seconds(*arguments: str) -> float:
    """What a command line costs, Python's own start included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert execute(*arguments).code == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("name", [(), *FOUND], ids=lambda name: " ".join(name) or PROGRAM)
def test_01_help_imports_nothing_slow(name: Name) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MODULES_AFTER_HELP, *name],
        env=environment(),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    modules = set(json.loads(done.stdout))
    assert "click" in modules
    assert modules & SLOW == set()


def test_02_help_is_grouped() -> None:
    assert set(COMMANDS) <= SECTIONS
    text = help_of(()).out
    assert [line for line in text.splitlines() if line in {f"{s}:" for s in SECTIONS}] == [
        f"{section}:" for section in COMMANDS
    ]
    for commands in COMMANDS.values():
        for command, (_, meaning) in commands.items():
            assert re.search(rf"^  {command} +{re.escape(meaning)}$", text, re.MULTILINE)


@every_command()
def test_02_a_help_begins_with_one_sentence(name: Name) -> None:
    assert re.fullmatch(r"[A-Z].+\.", FOUND[name].get_short_help_str(200))


def examples_of(command: click.Command) -> list[str]:
    """The command lines below `Examples:` in a help text."""
    block = (command.epilog or "").partition("Examples:\n")[2].partition("\n\n")[0]
    return [line.strip() for line in block.splitlines()]


EXAMPLES = [(n, line) for n, c in [((), cli), *FOUND.items()] for line in examples_of(c)]


@pytest.mark.parametrize("name", [(), *FOUND], ids=lambda name: " ".join(name) or PROGRAM)
def test_03_every_help_has_two_examples(name: Name) -> None:
    assert len([line for at, line in EXAMPLES if at == name]) >= 2
    assert "Examples:" in help_of(name).out


@pytest.mark.parametrize(("name", "line"), EXAMPLES, ids=[line for _, line in EXAMPLES])
def test_03_every_example_parses(name: Name, line: str) -> None:
    arguments = command_line_in(line)
    group: click.Command = cli
    context = click.Context(cli, info_name=PROGRAM, **AS_RUN)
    while isinstance(group, click.Group):
        found, command, arguments = resolve(group, context, arguments)
        context = click.Context(command, parent=context, info_name=found)
        group = command
    group.parse_args(context, arguments)
    assert name in ((), names_of(context))


def command_line_in(line: str) -> list[str]:
    """What follows the program's name in an example, up to a pipe, redirection or remark."""
    line = re.sub(r'^eval "\$\((.*)\)"$', r"\1", line)
    line = re.split(r"\s{2,}| [|>&] ", line)[0]
    words = shlex.split(line)
    while "=" in words[0]:
        variable = words.pop(0).partition("=")[0]
        assert variable in definitions(), f"{variable} is no setting"
    assert words.pop(0) == PROGRAM
    return words


def resolve(
    group: click.Group, context: click.Context, arguments: list[str]
) -> tuple[str, click.Command, list[str]]:
    """One step down the tree of commands, with common options before the name allowed."""
    parser = group.make_parser(context)
    parser.allow_interspersed_args = False
    _, rest, _ = parser.parse_args(list(arguments))
    found, command, rest = group.resolve_command(context, rest)
    assert found is not None
    assert command is not None
    return found, command, rest


def names_of(context: click.Context) -> Name:
    """The command that a context belongs to."""
    names: list[str] = []
    at: click.Context | None = context
    while at is not None and at.parent is not None:
        names.insert(0, str(at.info_name))
        at = at.parent
    return tuple(names)


@pytest.mark.parametrize("name", [(), *FOUND], ids=lambda name: " ".join(name) or PROGRAM)
def test_04_h_is_help(name: Name) -> None:
    done = inside(*name, "-h", COLUMNS="100")
    assert (done.code, done.out, done.err) == (0, help_of(name).out, "")


def test_05_version_tells_bundle_and_mlflow() -> None:
    done = inside("--version")
    assert done.code == 0
    assert done.out == f"{PROGRAM} {__version__} (MLflow 3.17.2)\n"


# --- 6 to 11: output and questions --------------------------------------------------------------

FIELDS = ["command", "version", "started_at", "finished_at", "outcome", "exit_code", "counts"]
FIELDS += ["items", "warnings"]


@every_command()
def test_06_json_is_one_document_on_stdout(name: Name) -> None:
    done = ran(name, "--json")
    document = document_of(done)
    assert list(document)[: len(FIELDS)] == FIELDS
    assert document["command"] == " ".join(name)
    assert document["version"] == __version__
    assert document["exit_code"] == done.code == run_of(name).exit_code
    assert done.out.endswith("}\n")
    assert ESCAPE not in done.out


@every_command()
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_06_json_is_one_document_for_wrong_usage_too(name: Name, before: bool) -> None:
    wrong = (*name, "--no-such-option")
    done = inside("--json", *wrong) if before else inside(*wrong, "--json")
    assert done.code == ExitCode.USAGE
    document = document_of(done)
    assert (document["outcome"], document["exit_code"]) == ("failed", 2)
    assert "No such option" in str(document["error"])


@every_command()
def test_07_logs_go_to_stderr(name: Name) -> None:
    for options in (("-vv",), ("-vv", "--log-format", "json"), ("-vv", "--json")):
        done = ran(name, *options)
        assert done.code == run_of(name).exit_code
        assert not LOG_LINE.search(done.out)
        assert '"level"' not in done.out
        assert "Error:" not in done.out
    document_of(ran(name, "-vv", "--json"))


@every_command()
def test_08_what_changes_data_has_a_dry_run_and_nothing_else(name: Name) -> None:
    plans = "--dry-run" in {spelling(option) for option in options_of(name)}
    assert plans is (name not in HAS_NOTHING_TO_PLAN)


@every_command()
def test_09_only_what_cannot_be_undone_asks(name: Name) -> None:
    asks = "--yes" in {spelling(option) for option in options_of(name)}
    assert asks is (name in ASKS_FOR_CONFIRMATION)


@every_command()
def test_10_nothing_is_asked_without_a_terminal(name: Name) -> None:
    """`execute` leaves stdin open without ever writing to it: a question would wait for ever."""
    assert executed(name).code == run_of(name).exit_code
    assert [spelling(option) for option in options_of(name) if option.prompt] == []


@every_command()
def test_11_quiet_and_verbose_are_there_and_do_what_they_say(name: Name) -> None:
    quiet, verbose = ran(name, "-q"), ran(name, "-vv")
    assert quiet.code == verbose.code == run_of(name).exit_code
    assert set(LOG_LINE.findall(quiet.err)) <= {"WARNING", "ERROR"}
    assert "INFO" not in quiet.err
    assert len(verbose.err) >= len(quiet.err)


# --- 12, 13: terminals --------------------------------------------------------------------------


@every_command()
def test_12_no_colours_into_a_pipe(name: Name) -> None:
    done = executed(name)
    assert ESCAPE not in done.out + done.err


@every_command(coloured=True)
@pytest.mark.parametrize(
    ("options", "extra"),
    [
        ((), {"NO_COLOR": "1"}),
        ((), {"NO_COLOR": "1", "FORCE_COLOR": "1"}),
        ((), {"TERM": "dumb"}),
        (("--color", "never"), {}),
        (("--color", "never"), {"FORCE_COLOR": "1"}),
        (("--json",), {}),
    ],
    ids=["NO_COLOR", "NO_COLOR wins", "dumb", "never", "never wins", "json"],
)
def test_12_no_colours_where_they_are_not_wanted(
    name: Name, options: tuple[str, ...], extra: dict[str, str]
) -> None:
    done = on_terminal(*name, *filled(run_of(name).arguments), *options, extra=extra)
    assert ESCAPE not in done.out
    assert done.code == run_of(name).exit_code


@every_command(coloured=True)
def test_12_colours_on_a_terminal(name: Name) -> None:
    done = on_terminal(*name, *filled(run_of(name).arguments))
    assert ESCAPE in done.out


@every_command(coloured=True)
@pytest.mark.parametrize(
    ("options", "extra"),
    [
        ((), {"FORCE_COLOR": "1"}),
        ((), {"FORCE_COLOR": "1", "TERM": "dumb"}),
        (("--color", "always"), {}),
        (("--color", "always"), {"NO_COLOR": "1"}),
    ],
    ids=["FORCE_COLOR", "FORCE_COLOR dumb", "always", "always wins"],
)
def test_12_colours_where_they_are_asked_for(
    name: Name, options: tuple[str, ...], extra: dict[str, str]
) -> None:
    assert ESCAPE in ran(name, *options, **extra).out


@every_command(coloured=True)
def test_12_an_empty_no_color_counts_as_not_set(name: Name) -> None:
    assert ESCAPE in ran(name, NO_COLOR="", FORCE_COLOR="1").out


@every_command(coloured=False)
def test_12_what_has_no_colours_gets_none_on_a_terminal_or_by_force(name: Name) -> None:
    assert ESCAPE not in on_terminal(*name, *filled(run_of(name).arguments)).out
    assert ESCAPE not in ran(name, FORCE_COLOR="1").out


@every_command()
def test_13_no_progress_bars_without_a_terminal(name: Name) -> None:
    done = executed(name)
    assert "\r" not in done.out + done.err
    assert "\b" not in done.out + done.err


# --- 14 to 16: errors ---------------------------------------------------------------------------


@every_command("settings_error")
def test_14_an_error_says_what_why_and_what_to_do(name: Name) -> None:
    done = ran(name, MLFLOW_WORKERS="many", TRACKING_SERVER_LOG_FORMAT="xml")
    assert done.code == ExitCode.SETTINGS
    lines = done.err.splitlines()
    assert sorted(lines[:-1]) == [
        "Error: MLFLOW_WORKERS (environment): must be a whole number",
        "Error: TRACKING_SERVER_LOG_FORMAT (environment): must be 'text' or 'json'",
    ]
    assert lines[-1].startswith(f"Try: {PROGRAM} ")
    assert done.out == ""


@every_command("settings_error")
def test_14_a_traceback_only_with_debug(name: Name) -> None:
    assert "Traceback" not in ran(name, MLFLOW_WORKERS="many", TRACKING_SERVER_LOG_FORMAT="xml").err
    done = ran(name, "--debug", MLFLOW_WORKERS="many")
    assert done.code == ExitCode.SETTINGS
    assert "Traceback" in done.err
    assert "Error: MLFLOW_WORKERS" in done.err


@every_command()
def test_14_wrong_usage_leads_to_the_help(name: Name) -> None:
    done = ran(name, "--no-such-option")
    assert done.code == ExitCode.USAGE
    assert "Error: No such option" in done.err
    assert f"Try '{PROGRAM} {' '.join(name)} --help' for help." in done.err
    assert "Traceback" not in done.err


@every_command()
def test_14_help_works_whatever_the_settings(name: Name) -> None:
    """Who has broken the settings needs it most."""
    done = inside(*name, "--help", MLFLOW_PORT="x", TRACKING_SERVER_LOG_FORMAT="xml")
    assert done.code == 0


_BREAK = """
import sys
import mlflow_server.cli.{module} as module
module.command.callback = lambda *_, **__: 1 / 0
from mlflow_server.cli.main import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("form", ["text", "json"])
def test_14_the_unexpected_has_its_exit_code_and_a_sentence(debug: bool, form: str) -> None:
    arguments = [
        "settings",
        *(["--debug"] if debug else []),
        *(["--json"] if form == "json" else []),
    ]
    done = subprocess.run(
        [sys.executable, "-c", _BREAK.format(module="settings"), *arguments],
        env=environment(),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == ExitCode.INTERNAL
    assert "Error: unexpected ZeroDivisionError in settings" in done.stderr
    assert ("Traceback" in done.stderr) is debug
    if form == "json":
        assert json.loads(done.stdout)["exit_code"] == ExitCode.INTERNAL


def test_15_exit_codes_come_from_one_table() -> None:
    table = {str(int(code)): code.meaning for code in ExitCode}
    told = dict(re.findall(r"^ +(\d+)  (.+)$", inside("help", "exit-codes").out, re.MULTILINE))
    assert told == table
    text = (REPOSITORY / "docs/commands.md").read_text("utf-8")
    assert dict(re.findall(r"^\| (\d+) \| (.+) \|$", text, re.MULTILINE)) == table


@pytest.mark.parametrize("name", [(), *FOUND], ids=lambda name: " ".join(name) or PROGRAM)
def test_15_a_help_names_only_exit_codes_of_the_table(name: Name) -> None:
    text = " ".join(help_of(name).out.split())
    sentences = [part for part in re.split(r"\.\s", text) if re.search(r"(?i)exit code", part)]
    named = {number for part in sentences for number in re.findall(r"(?<![\d.:])\d+\b(?! s)", part)}
    assert named <= {str(int(code)) for code in ExitCode}


@every_command()
def test_16_an_unknown_command_suggests_the_nearest(name: Name) -> None:
    *above, last = name
    done = inside(*above, last[:-1] + "x")
    assert done.code == ExitCode.USAGE
    assert f"Did you mean {last!r}?" in done.err


@every_option()
def test_16_an_unknown_option_suggests_the_nearest(name: Name, option: click.Option) -> None:
    """In process: there are many."""
    wrong = spelling(option)[:-1]
    context = click.Context(FOUND[name] if name else cli, info_name="x", **AS_RUN)
    with pytest.raises(click.NoSuchOption) as caught:
        context.command.make_parser(context).parse_args([wrong + "~"])
    assert spelling(option) in (caught.value.possibilities or ())


# --- 17, 18: signals ----------------------------------------------------------------------------


@contextlib.contextmanager
def silent_server() -> Iterator[tuple[int, threading.Event]]:
    """A port that accepts and never answers, and an event for the first connection."""
    connected = threading.Event()
    over = threading.Event()
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)

        def accept() -> None:
            while not over.is_set():
                try:
                    accepted.append(listener.accept()[0])
                except TimeoutError:
                    continue
                connected.set()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1], connected
        finally:
            over.set()
            thread.join()
            for connection in accepted:
                connection.close()


@every_command(hangs_on=True)
def test_17_ctrl_c_ends_it_cleanly(name: Name, tmp_path: Path) -> None:
    run = run_of(name)
    assert run.hangs_on is not None
    with silent_server() as (port, connected):
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow_server", *name, *filled(run.hangs_on, port)],
            cwd=tmp_path,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # As on a terminal: a shell lets what it runs in the background ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            assert connected.wait(TIMEOUT_S)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == run.interrupted
    assert "Traceback" not in err
    assert out == ""
    assert "stopped" in err.lower()
    assert list(tmp_path.iterdir()) == []


@every_command()
@pytest.mark.parametrize("options", [(), ("--json",), ("--help",)], ids=["text", "json", "help"])
def test_18_a_reader_that_leaves_is_no_error(name: Name, options: tuple[str, ...]) -> None:
    """As `| head -0`, with nobody there to read from the start."""
    reader, writer = os.pipe()
    os.close(reader)
    with tempfile.TemporaryDirectory(prefix="contract-") as folder:
        try:
            done = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "mlflow_server",
                    *name,
                    *filled(run_of(name).arguments),
                    *options,
                ],
                cwd=folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=subprocess.PIPE,
                text=True,
                timeout=TIMEOUT_S,
            )
        finally:
            os.close(writer)
    assert "BrokenPipe" not in done.stderr
    assert "Traceback" not in done.stderr
    expected = 0 if "--help" in options else run_of(name).exit_code
    assert done.returncode == expected, done.stderr


# --- 19 to 22: options and values ---------------------------------------------------------------


def variable_of(option: click.Option) -> str | None:
    """The environment variable that an option's help names."""
    match = re.search(r"\[env: ([A-Z][A-Z0-9_]+)\]", option.help or "")
    return match[1] if match else None


def test_19_an_option_is_called_the_same_everywhere() -> None:
    meanings: dict[str, set[tuple[str | None, str | None]]] = {}
    names: dict[str, set[str]] = {}
    for command in FOUND:
        for option in options_of(command):
            meanings.setdefault(spelling(option), set()).add((variable_of(option), option.help))
            if variable := variable_of(option):
                names.setdefault(variable, set()).add(spelling(option))
    assert {option: found for option, found in meanings.items() if len(found) > 1} == {}
    assert {variable: found for variable, found in names.items() if len(found) > 1} == {}


@every_command()
def test_19_every_command_has_the_common_options(name: Name) -> None:
    assert set(COMMON_OPTIONS) <= {spelling(option) for option in options_of(name)}


@every_option()
def test_19_options_are_long_and_whole_words(name: Name, option: click.Option) -> None:
    for text in (*option.opts, *option.secondary_opts):
        assert re.fullmatch(r"--[a-z]+(-[a-z]+)*|-[a-z]", text)


@every_option()
def test_20_every_option_shows_its_variable(name: Name, option: click.Option) -> None:
    if spelling(option) in ("--version", "--help"):
        return  # these are questions, no options that one would set
    variable = variable_of(option)
    assert variable is not None
    if variable in definitions():
        assert definitions()[variable].setting.option == spelling(option)
    else:
        assert option.envvar == variable


@every_command()
def test_20_the_variables_are_in_the_help_as_shown(name: Name) -> None:
    text = help_of(name, columns=200).out
    variables = [variable_of(option) for option in options_of(name)]
    assert [variable for variable in variables if str(variable) not in text] == []


COMMON_VARIABLES = {
    "TRACKING_SERVER_JSON": ("1", "--json"),
    "TRACKING_SERVER_VERBOSE": ("2", "-vv"),
    "TRACKING_SERVER_QUIET": ("1", "--quiet"),
    "TRACKING_SERVER_COLOR": ("always", "--color=always"),
    "TRACKING_SERVER_DEBUG": ("1", "--debug"),
    "TRACKING_SERVER_LOG_FORMAT": ("json", "--log-format=json"),
}


@pytest.mark.parametrize("variable", COMMON_VARIABLES)
def test_20_a_variable_does_what_its_option_does(variable: str) -> None:
    value, option = COMMON_VARIABLES[variable]
    by_variable, by_option = inside("settings", **{variable: value}), inside("settings", option)
    assert by_variable.code == by_option.code == 0
    if "JSON" in variable:
        assert list(document_of(by_variable)) == list(document_of(by_option))
    elif "LOG_FORMAT" in variable:
        assert by_variable.out.replace("[environment]", "[option]") == by_option.out
    else:
        assert by_variable.out == by_option.out


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(
    ("option", "variables"),
    [
        ("--color=never", {"TRACKING_SERVER_COLOR": "always"}),
        ("--color=always", {"TRACKING_SERVER_COLOR": "never"}),
        ("-vv", {"TRACKING_SERVER_QUIET": "1"}),
        ("--quiet", {"TRACKING_SERVER_VERBOSE": "2"}),
        ("-vv", {"TRACKING_SERVER_VERBOSE": "1"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "=".join(*value.items()),
)
def test_20_an_option_beats_its_variable_wherever_it_stands(
    option: str, variables: dict[str, str], before: bool
) -> None:
    assert parsed(option, before=before, variables=variables) == parsed(option, before=before)


def parsed(
    option: str, *, before: bool, variables: Mapping[str, str] | None = None
) -> list[object]:
    """What the common options came to, as a command sees it."""
    seen: list[object] = []

    def command() -> None:
        context = click.get_current_context().find_object(Context)
        assert context is not None
        seen.extend([context.json, context.log_format, context.verbosity])
        seen.extend([context.color, context.debug])

    with mock.patch.object(FOUND["settings",], "callback", command):
        done = inside(
            *([option, "settings"] if before else ["settings", option]), **variables or {}
        )
    assert done.code == 0, done.err
    return seen


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--json", [True, None, 0, "auto", False]),
        ("--log-format=json", [False, "json", 0, "auto", False]),
        ("-v", [False, None, 1, "auto", False]),
        ("-vv", [False, None, 2, "auto", False]),
        ("-q", [False, None, -1, "auto", False]),
        ("--color=never", [False, None, 0, "never", False]),
        ("--debug", [False, None, 0, "auto", True]),
    ],
)
def test_19_common_options_stand_before_or_after_the_command(
    option: str, expected: list[object]
) -> None:
    assert parsed(option, before=True) == expected
    assert parsed(option, before=False) == expected


def test_20_a_bad_value_of_a_variable_is_a_settings_error_that_names_it() -> None:
    """2 is for the command line, 78 for settings, wherever they are (DESIGN.md §4)."""
    done = inside("settings", TRACKING_SERVER_COLOR="purple")
    assert done.code == ExitCode.SETTINGS
    assert "TRACKING_SERVER_COLOR" in done.err


@every_command()
def test_21_no_secret_is_needed_as_an_argument(name: Name) -> None:
    """URIs may be options, since not all have a password; tokens and passwords may not."""
    words = re.compile(r"token|password|secret|key|credential")
    assert [o for option in options_of(name) for o in option.opts if words.search(o)] == []


PLANTED = {
    "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg2://ops:{SECRET}@127.0.0.1:1/db",
    "MLFLOW_REGISTRY_STORE_URI": f"postgresql+psycopg2://127.0.0.1:1/db?password={SECRET}",
    "MLFLOW_TRACKING_TOKEN": SECRET,
    "MLFLOW_TRACKING_URI": f"http://ops:{SECRET}@127.0.0.1:1",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "PGPASSWORD": SECRET,
    "HTTPS_PROXY": f"http://ops:{SECRET}@127.0.0.1:1",
}


@every_command()
@pytest.mark.parametrize(
    "options",
    [(), ("--json",), ("-vv", "--debug"), ("-vv", "--debug", "--log-format", "json", "--json")],
    ids=["text", "json", "debug", "debug json"],
)
def test_21_secrets_are_shown_nowhere(name: Name, options: tuple[str, ...]) -> None:
    done = ran(name, *options, **PLANTED)
    assert SECRET not in done.out + done.err


def is_duration(option: click.Option) -> bool:
    """A setting of seconds that is written with units."""
    definition = definitions().get(variable_of(option) or "")
    return definition is not None and isinstance(definition.default, float)


DURATIONS = [(name, option) for name in FOUND for option in options_of(name) if is_duration(option)]


@pytest.mark.parametrize(
    ("name", "option"), DURATIONS, ids=[f"{' '.join(n)} {spelling(o)}" for n, o in DURATIONS]
)
def test_22_durations_have_units(name: Name, option: click.Option) -> None:
    done = ran(name, spelling(option), "30")
    assert done.code == ExitCode.USAGE
    assert f"{spelling(option)}: '30' is not a duration" in done.err
    good = ran(name, spelling(option), "30s")
    assert good.code == run_of(name).exit_code
    shown = definitions()[str(variable_of(option))].default_text
    assert re.fullmatch(r"(\d+[dhms])+", shown)


@every_command()
def test_22_times_have_a_zone(name: Name) -> None:
    document = document_of(ran(name, "--json"))
    for field in ("started_at", "finished_at"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(document[field]))


def test_22_a_bad_value_of_an_option_is_wrong_usage() -> None:
    assert inside("doctor", "--port", "70000").code == ExitCode.USAGE


# --- 23, 24: completion, topics -----------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_23_there_is_a_completion_script(shell: str, tmp_path: Path) -> None:
    done = inside("completion", shell)
    assert done.code == 0
    assert "_MLFLOW_SERVER_COMPLETE" in done.out
    if shutil.which(shell):
        (tmp_path / "script").write_text(done.out, "utf-8")
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


def completions(*words: str) -> set[str]:
    """What bash would offer for the last word."""
    done = execute(
        _MLFLOW_SERVER_COMPLETE="bash_complete",
        COMP_WORDS=" ".join((PROGRAM, *words)),
        COMP_CWORD=str(len(words)),
    )
    assert done.err == ""
    return {line.partition(",")[2] for line in done.out.splitlines()}


@every_command()
def test_23_commands_are_completed(name: Name) -> None:
    *above, last = name
    assert last in completions(*above, last[:-1])


@every_command()
def test_23_options_are_completed(name: Name) -> None:
    offered = completions(*name, "--")
    assert {spelling(option) for option in options_of(name)} <= offered


def test_24_topics_are_explained() -> None:
    listed = inside("help").out
    for topic in TOPICS:
        assert topic in listed
        done = inside("help", topic)
        assert (done.code, done.err) == (0, "")
        assert len(done.out.splitlines()) > 5
    assert PROGRAM in inside("help", "examples").out


def test_24_an_unknown_topic_names_those_there_are() -> None:
    done = inside("help", "exit-code")
    assert done.code == ExitCode.USAGE
    assert "exit-codes" in done.err


@every_command("help_of_command")
def test_24_the_name_of_a_command_is_a_topic_too(name: Name) -> None:
    """As `git help COMMAND`; many will type it."""
    done = inside("help", *name, COLUMNS="100")
    assert (done.code, done.out) == (0, help_of(name).out)


# --- 25, 26: again ------------------------------------------------------------------------------


def same(done: Done) -> tuple[int, list[str], list[str]]:
    """What two runs must have in common: numbers may differ, ports and free space do."""
    lines = [re.sub(r"[\d.]+( [KMGT]?i?B)?", "N", line) for line in done.out.splitlines()]
    return done.code, lines, [re.sub(r"[\d.:TZ-]+", "N", line) for line in done.err.splitlines()]


@every_command()
def test_25_a_second_run_says_the_same_and_nothing_is_left_behind(name: Name) -> None:
    first, second = executed(name), execute(*name, *filled(run_of(name).arguments))
    assert same(first) == same(second)
    assert first.left == second.left == ()


@every_command()
def test_26_lists_have_a_stable_order(name: Name) -> None:
    """Sets of text come out in another order in each process, unless told a seed."""
    line = (*name, *filled(run_of(name).arguments), "--json")
    first, second = (execute(*line, PYTHONHASHSEED=seed) for seed in ("1", "2"))

    def order(value: object) -> object:
        if isinstance(value, dict):
            return [(key, order(entry)) for key, entry in value.items()]
        if isinstance(value, list):
            return [order(entry) for entry in value]
        return re.sub(r"[\d.]+( [KMGT]?i?B)?", "N", str(value))

    assert order(document_of(first)) == order(document_of(second))


@every_command(total=True)
def test_26_lists_end_with_a_total(name: Name) -> None:
    done = ran(name)
    last = done.out.splitlines()[-1]
    match = re.match(rf"(\d+) {run_of(name).total}\b", last)
    assert match is not None
    assert int(match[1]) > 3
    assert f"\n{match[1]} {run_of(name).total}" in done.out


# --- 27, 28: narrow terminals, no UTF-8 ---------------------------------------------------------

COLUMNS = 60


@pytest.mark.parametrize("name", [(), *FOUND], ids=lambda name: " ".join(name) or PROGRAM)
def test_27_help_fits_a_narrow_terminal(name: Name) -> None:
    done = help_of(name, columns=COLUMNS)
    assert done.code == 0
    examples = {f"  {line}" for line in examples_of(FOUND[name] if name else cli)}
    wide = [
        line
        for line in done.out.splitlines()
        if len(line) > COLUMNS and len(line.split()) > 1 and f"  {line.strip()}" not in examples
    ]
    assert wide == []


@pytest.mark.parametrize("columns", [COLUMNS, 80])
@pytest.mark.parametrize("name", [(), *FOUND], ids=lambda name: " ".join(name) or PROGRAM)
def test_27_help_breaks_no_name_in_two(name: Name, columns: int) -> None:
    """A variable cut in the middle can be neither searched nor copied."""
    words = set(help_of(name, columns=columns).out.split())
    command = FOUND[name] if name else cli
    for option in (param for param in command.params if isinstance(param, click.Option)):
        for word in (option.help or "").split():
            assert word in words


@every_command()
def test_27_results_fit_a_narrow_terminal(name: Name) -> None:
    done = on_terminal(*name, *filled(run_of(name).arguments), columns=COLUMNS)
    assert done.code == run_of(name).exit_code
    assert same(Done(done.code, words_of(done.out), "")) == same(
        Done(done.code, words_of(executed(name).out + executed(name).err), "")
    )


def words_of(text: str) -> str:
    """A text without its colours, line ends and runs of spaces."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())


# What it is like where even Python cannot help itself to UTF-8.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@every_command()
@pytest.mark.parametrize("options", [(), ("--json",), ("--help",)], ids=["text", "json", "help"])
def test_28_without_utf_8_nothing_breaks(name: Name, options: tuple[str, ...]) -> None:
    done = execute(*name, *filled(run_of(name).arguments), *options, **ASCII)
    assert done.code == (0 if "--help" in options else run_of(name).exit_code), done.err
    assert "Traceback" not in done.err
    if "--json" in options:
        assert document_of(done)["exit_code"] == done.code


@every_command()
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
@pytest.mark.parametrize(
    "extra", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}], ids=["C", "ascii"]
)
def test_28_what_an_operator_wrote_in_utf_8_can_be_printed_without(
    name: Name, options: tuple[str, ...], extra: dict[str, str]
) -> None:
    umlauts = {"MLFLOW_DEFAULT_ARTIFACT_ROOT": "/srv/künstliche/Übung"}
    done = execute(*name, *filled(run_of(name).arguments), *options, **extra, **umlauts)
    assert done.code == run_of(name).exit_code, done.err
    assert "Traceback" not in done.err
    if "--json" in options:
        assert document_of(done)["exit_code"] == done.code


# --- And the platform ---------------------------------------------------------------------------

FLAGS: tuple[str, ...]
FLAGS = ("--anaconda-project-host", "mlflow.example.com", "--anaconda-project-port=8086")
FLAGS += ("--anaconda-project-address", "127.0.0.1", "--anaconda-project-no-browser")
FLAGS += ("--anaconda-project-iframe-hosts", "a.example.com b.example.com")
FLAGS += ("--anaconda-project-use-xheaders", "--anaconda-project-future=1")


@every_command()
@pytest.mark.parametrize("where", ["before", "after", "help"])
def test_flags_of_the_platform_are_accepted_everywhere(name: Name, where: str) -> None:
    arguments = [*name, *filled(run_of(name).arguments)]
    match where:
        case "before":
            done = inside(*FLAGS, *arguments)
        case "after":
            done = inside(*arguments, *FLAGS)
        case _:
            done = inside(*name, "--help", *FLAGS)
    assert "No such option" not in done.err
    expected = {ExitCode.OK} if where == "help" else {run_of(name).exit_code, ExitCode.ATTENTION}
    assert done.code in expected, done.err


@every_command()
def test_after_two_dashes_the_flags_are_no_flags(name: Name) -> None:
    done = ran(name, "--", "--anaconda-project-port=8086")
    assert done.code == ExitCode.USAGE
    assert "--anaconda-project-port=8086" in done.err
