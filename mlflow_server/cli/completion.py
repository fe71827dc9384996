"""`completion`: click's own completion scripts."""

import click

from mlflow_server.cli.shared import (
    Context,
    common_options,
    finish,
    make_report,
    pass_context,
)
from mlflow_server.errors import InternalError
from mlflow_server.report import Report

EPILOG = """\b
Examples:
  eval "$(mlflow-server completion bash)"
  mlflow-server completion fish > ~/.config/fish/completions/mlflow-server.fish"""


@click.command("completion", epilog=EPILOG)
@click.argument("shell", type=click.Choice(["bash", "fish", "zsh"]))
@common_options
@pass_context
def command(context: Context, shell: str) -> None:
    """Print a completion script for SHELL."""
    from click.shell_completion import get_completion_class

    from mlflow_server.cli.main import PROGRAM, cli

    completion = get_completion_class(shell)
    if completion is None:
        raise InternalError(f"this version of click has no completion for {shell}")
    variable = f"_{PROGRAM.replace('-', '_').upper()}_COMPLETE"
    script = completion(cli, {}, PROGRAM, variable).source()
    finish(context, make_report(context, data={"shell": shell, "script": script}), _render)


def _render(context: Context, report: Report) -> None:
    click.echo(report.data["script"], color=context.wants_color())
