"""Entry point: find the command, run it, turn a failure into one sentence and an exit code."""

import importlib
import itertools
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from mlflow_server import __version__
from mlflow_server.cli.groups import Group
from mlflow_server.cli.shared import Context, Formatter, common_options
from mlflow_server.errors import ExitCode, OpsError, SettingsError
from mlflow_server.log import Redactor
from mlflow_server.platform import PlatformFlags
from mlflow_server.report import Report

PROGRAM = "mlflow-server"
# Section -> command -> (module, one line). Modules are imported when their command runs.
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Run": {
        "serve": ("serve", "Run the tracking server."),
    },
    "Maintain": {
        "gc": ("gc", "Purge what was deleted longer ago than the TTL: rows and files."),
        "backup": ("backup", "Make, list, verify and prune backups of database and artifacts."),
        "restore": ("restore", "Restore a backup into an empty store."),
        "upgrade": ("upgrade", "Bring the store's schema to this release, undoably."),
    },
    "Move data": {
        "migrate": ("migrate", "Move the store into another database, its artifacts elsewhere."),
    },
    "Release": {
        "ae5": ("ae5", "Build, upload, deploy and run releases on Anaconda Enterprise 5."),
    },
    "Inspect": {
        "doctor": ("doctor", "Check everything the server needs, each finding with its fix."),
        "settings": ("settings", "Show every setting: value, source, meaning."),
        "help": ("help", "Explain a topic: exit-codes, settings, examples."),
        "completion": ("completion", "Print a completion script for bash, zsh or fish."),
    },
}
EPILOG = """\b
Examples:
  mlflow-server serve                        SQLite and a local folder
  mlflow-server doctor --json                for machines
  mlflow-server help exit-codes

Common options may stand before or after the command. Settings come from options, the environment,
a secrets folder or anaconda-project.yml: see `mlflow-server settings`."""


class _NobodyReads(BaseException):
    """Whoever read stdout has left; click would make an exit code of its own of that."""


class Commands(Group):
    """The command group: grouped help, commands imported on demand, near misses named."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the common options; help and version print here."""
        try:
            return super().make_context(*args, **kwargs)
        except BrokenPipeError as err:
            raise _NobodyReads from err

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as err:
            raise _NobodyReads from err

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order of the help."""
        return [name for section in COMMANDS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command and take its `command`."""
        for section in COMMANDS.values():
            if cmd_name in section:
                module = importlib.import_module(f"mlflow_server.cli.{section[cmd_name][0]}")
                command: click.Command = module.command
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by section, without importing any."""
        for section, commands in COMMANDS.items():
            with formatter.section(section):
                formatter.write_dl([(name, line) for name, (_, line) in commands.items()])


@click.group(
    cls=Commands,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, help="Show versions and exit.",
    callback=lambda ctx, _parameter, value: _show_version(ctx) if value else None,
)  # fmt: skip
@common_options
def cli() -> None:
    """A tracking server for MLflow, and everything around it that keeps it running."""


def _show_version(ctx: click.Context) -> None:
    from importlib.metadata import version

    click.echo(f"{PROGRAM} {__version__} (MLflow {version('mlflow')})")
    ctx.exit()


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command line and exit.

    Args:
        arguments: Without the program name; by default those of this process.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    platform, rest = PlatformFlags.take_from(arguments)
    # Known before the command line is parsed: it may be wrong, and that is to be told in JSON, too.
    context = Context(platform=platform, json="--json" in itertools.takewhile("--".__ne__, rest))
    click.Context.formatter_class = Formatter
    try:
        context.exit_code = _run(rest, context)
        sys.stdout.flush()
    except (BrokenPipeError, _NobodyReads):
        # The reader (`| head`) has what it wanted; Python must not flush into the pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(context.exit_code)


def _run(arguments: list[str], context: Context) -> int:
    try:
        result = cli.main(arguments, prog_name=PROGRAM, standalone_mode=False, obj=context)
        return result if isinstance(result, int) else int(ExitCode.OK)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(ExitCode.OK)
    except click.ClickException as err:
        return _report_usage(err, context)
    except click.Abort:
        click.echo("Stopped.", err=True)
        return int(ExitCode.INTERRUPTED)
    except OpsError as err:
        return _report_failure(err, context)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)
        return int(ExitCode.INTERRUPTED)
    except Exception as err:
        hint = "run it again with --debug for the traceback, and report it"
        failure = OpsError(
            f"unexpected {type(err).__name__} in {context.command or PROGRAM}",
            hint="report it with the lines above" if context.debug else hint,
        )
        failure.exit_code = ExitCode.INTERNAL
        return _report_failure(failure, context)


def _report_usage(err: click.ClickException, context: Context) -> int:
    if isinstance(err, click.BadParameter) and (variable := _variable_of(err)):
        problem = f"{variable} (environment): {err.message}"
        return _report_failure(SettingsError([problem], hint=f"{PROGRAM} --help"), context)
    code = int(ExitCode.USAGE) if isinstance(err, click.UsageError) else err.exit_code
    context.exit_code = code
    if context.json:
        failure = OpsError(err.format_message())
        failure.exit_code = ExitCode.USAGE
        _echo_failure_document(failure, context)
    err.show()
    return code


def _variable_of(err: click.BadParameter) -> str | None:
    """The environment variable that a bad value came from, when it came from one."""
    if err.ctx is None or err.param is None:
        return None
    source = err.ctx.get_parameter_source(err.param.name or "")
    return str(err.param.envvar) if source is ParameterSource.ENVIRONMENT else None


def _report_failure(err: OpsError, context: Context) -> int:
    context.exit_code = int(err.exit_code)
    redact = _redactor(context)
    if context.debug:
        import traceback

        click.echo(redact(traceback.format_exc()), err=True)
    lines = err.problems if isinstance(err, SettingsError) else [err.message]
    for line in lines:
        click.echo(f"Error: {redact(line)}", err=True)
    if err.hint:
        click.echo(f"Try: {redact(err.hint)}", err=True)
    if context.json:
        _echo_failure_document(err, context)
    return int(err.exit_code)


def _redactor(context: Context) -> Redactor:
    return Redactor(context.settings.secret_values if context.settings else ())


def _echo_failure_document(err: OpsError, context: Context) -> None:
    report = Report(
        command=context.command,
        started_at=context.started_at,
        finished_at=datetime.now(UTC),
        exit_code=err.exit_code,
        error=err,
    )
    click.echo(_redactor(context)(report.as_json()))
