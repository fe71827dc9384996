"""`migrate`: the store into another database, its artifacts elsewhere."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import click

from mlflow_server.cli.backup import IN_BYTES, destination_of
from mlflow_server.cli.shared import (
    Context,
    common_options,
    finish,
    load,
    own_option,
    pass_context,
    setting_options,
    stop_on_sigterm,
)
from mlflow_server.errors import SettingsError

EPILOG = """\b
Examples:
  mlflow-server migrate --to-backend-store-uri postgresql://mlflow@db/mlflow --dry-run
  mlflow-server migrate --to-backend-store-uri sqlite:////srv/mlflow/store.db
  mlflow-server migrate --file-store ./mlruns --to-backend-store-uri sqlite:///mlflow.db

The source is only read. Stop its server first, or what is written meanwhile stays behind. A URI
with a password belongs into the variable, not on the command line. Interrupted, the same command
goes on; at the end it says which settings to change."""


@click.command("migrate", epilog=EPILOG)
@setting_options(
    "MLFLOW_BACKEND_STORE_URI",
    "MLFLOW_ARTIFACTS_DESTINATION",
    "TRACKING_SERVER_TO_BACKEND_STORE_URI",
    "TRACKING_SERVER_TO_ARTIFACTS_DESTINATION",
)
@own_option(
    "--file-store",
    "Move this folder of MLflow's (./mlruns) instead of the configured store.",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
)
@own_option("--dry-run", "Show what would be done, and change nothing.", is_flag=True)
@common_options
@pass_context
def command(
    context: Context,
    /,
    options: Mapping[str, str],
    file_store: Path | None,
    dry_run: bool,
) -> None:
    """Move the store into another, empty database, and its artifacts to another destination.

    SQLite, PostgreSQL, MySQL and MariaDB into each other, with all ids and times.
    """
    loaded = load(context, options)
    from mlflow_server.backup.migrate import Migration, Request
    from mlflow_server.cli.migrate_report import echo_migrated, migrated_report
    from mlflow_server.cli.progress import is_watched, show_phases
    from mlflow_server.cli.store import require_store
    from mlflow_server.store.schema import importing_lightly
    from mlflow_server.uris import parse_artifacts_destination

    wanted = loaded.settings.migration
    if wanted.target is None:
        raise SettingsError(
            ["TRACKING_SERVER_TO_BACKEND_STORE_URI: is not set: nobody said where to"],
            hint="mlflow-server migrate --to-backend-store-uri postgresql://USER@HOST/DATABASE",
        )
    os.environ.update(loaded.credentials)
    with (
        importing_lightly(),
        stop_on_sigterm(),
        ExitStack() as stack,
        show_phases(context, IN_BYTES) as progress,
    ):
        source, destination = loaded.settings.store.backend, destination_of(loaded)
        if file_store is not None:
            from mlflow_server.backup.file_store import importing

            source, destination = stack.enter_context(importing(file_store))
        require_store(source, needs_head=False)
        place = wanted.to_artifacts_destination
        there = place and parse_artifacts_destination(place, plugin_schemes=frozenset())
        request = Request(source, wanted.target, destination, there or None, is_watched(context))
        migration = Migration(request, os.environ, progress)
        migrated = migration.survey() if dry_run else migration.run()
    report = migrated_report(context, migrated, request, is_dry_run=dry_run)
    finish(context, report, echo_migrated)
