"""`help`: topics that concern more than one command."""

import click

from mlflow_server.cli.shared import (
    Context,
    common_options,
    finish,
    make_report,
    pass_context,
)
from mlflow_server.errors import ExitCode
from mlflow_server.report import Report

EPILOG = """\b
Examples:
  mlflow-server help
  mlflow-server help exit-codes"""

_SETTINGS = """\
Settings, strongest source first:
  option                 mlflow-server serve --port 6000
  platform flag          --anaconda-project-port 8086
  environment            MLFLOW_PORT=6000 mlflow-server serve
  secret                 a file MLFLOW_PORT in /var/run/secrets/user_credentials
                         (another folder: TRACKING_SERVER_SECRETS_DIR)
  anaconda-project.yml   a default under `variables:`
  default                what the code says

`mlflow-server settings` lists every setting with its value and where it came from.
Durations: 30d12h, 90m, 25s. Lists: commas or spaces. Switches: true or false.
An empty value counts as not set."""

_EXAMPLES = """\
Try it, with SQLite and a local folder:
  mlflow-server serve

PostgreSQL and S3, behind a reverse proxy:
  export MLFLOW_BACKEND_STORE_URI=postgresql://mlflow:PASSWORD@db/mlflow
  export MLFLOW_ARTIFACTS_DESTINATION=s3://bucket/mlflow
  export TRACKING_SERVER_PUBLIC_URL=https://mlflow.example.com
  mlflow-server serve --host 0.0.0.0 --metrics --access-log --log-format json

What is wrong, and what to do about it:
  mlflow-server doctor"""


def _exit_codes() -> str:
    lines = [f"  {int(code):>3}  {code.meaning}" for code in ExitCode]
    return "\n".join(
        ["Exit codes of every command:", *lines, "", "`serve` ends with 0 after SIGTERM or Ctrl-C."]
    )


TOPICS = {"examples": _EXAMPLES, "exit-codes": _exit_codes(), "settings": _SETTINGS}


@click.command("help", epilog=EPILOG)
@click.argument("topic", nargs=-1, metavar="[TOPIC|COMMAND]")
@common_options
@pass_context
def command(context: Context, topic: tuple[str, ...]) -> None:
    """Explain a topic or a command; without one, list the topics."""
    name = " ".join(topic)
    data: dict[str, object] = {"topics": sorted(TOPICS)}
    if name in TOPICS:
        data = {"topic": name, "text": TOPICS[name]}
    elif name:
        data = {"topic": name, "text": _help_of(topic)}
    finish(context, make_report(context, data=data), _render)


def _help_of(names: tuple[str, ...]) -> str:
    at = click.get_current_context().find_root()
    for name in names:
        found = at.command.get_command(at, name) if isinstance(at.command, click.Group) else None
        if found is None:
            topics = ", ".join(sorted(TOPICS))
            raise click.UsageError(f"No such topic {' '.join(names)!r}: {topics}, or a command.")
        at = click.Context(found, parent=at, info_name=name)
    return at.get_help()


def _render(context: Context, report: Report) -> None:
    text = report.data.get("text")
    if text is None:
        topics = "\n".join(f"  {topic}" for topic in report.data["topics"])
        text = f"Topics:\n{topics}\n\nCommands: mlflow-server --help, mlflow-server COMMAND --help"
    click.echo(text, color=context.wants_color())
