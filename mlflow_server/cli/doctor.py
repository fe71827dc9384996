"""`doctor`: check everything the server needs."""

import os
from collections.abc import Mapping
from pathlib import Path

import click

from mlflow_server.cli.shared import (
    Context,
    common_options,
    echo_items,
    finish,
    load,
    make_report,
    pass_context,
    setting_options,
)

EPILOG = """\b
Examples:
  mlflow-server doctor
  mlflow-server doctor --json
  MLFLOW_BACKEND_STORE_URI=postgresql://mlflow@db/mlflow mlflow-server doctor

Takes 3 s at most. Exit code 0 when all is well, 3 when something needs attention, 69 when something
cannot be reached, 78 when settings are wrong."""


@click.command("doctor", epilog=EPILOG)
@setting_options(
    "MLFLOW_BACKEND_STORE_URI",
    "MLFLOW_ARTIFACTS_DESTINATION",
    "MLFLOW_HOST",
    "MLFLOW_PORT",
    "MLFLOW_TRACKING_URI",
)
@common_options
@pass_context
def command(context: Context, options: Mapping[str, str]) -> None:
    """Check everything the server needs, each finding with its fix.

    Only looks: nothing is created or changed, but for one small probe object that is written to the
    artifact destination and deleted again.
    """
    loaded = load(context, options)
    from mlflow_server.doctor.checks import examine
    from mlflow_server.server.plan import make_plan
    from mlflow_server.server.survey import survey

    os.environ.update(loaded.credentials)
    project_dir = Path(os.environ.get("PROJECT_DIR") or ".")
    plan = make_plan(loaded, survey(loaded.settings, project_dir))
    items, exit_code = examine(loaded, plan, os.environ)
    finish(context, make_report(context, items, exit_code=exit_code), echo_items)
