"""`migrate`: the store into another database, its artifacts elsewhere."""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

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
from mlflow_server.errors import UsageError

EPILOG = """\b
Examples:
  mlflow-server migrate --to-backend-store-uri postgresql://mlflow@db/mlflow --dry-run
  mlflow-server migrate --to-backend-store-uri sqlite:////srv/mlflow/store.db
  mlflow-server migrate --file-store ./mlruns --to-backend-store-uri sqlite:///mlflow.db

The source is only read. Stop its server first, or what is written meanwhile stays behind. A URI
with a password belongs into the variable, not on the command line. Interrupted, the same command
goes on; at the end it says which settings to change."""


class _Uri(click.ParamType[Any]):
    """A URI that has to be understood.

    Args:
        parse: Understands it, or raises `ValueError`.
    """

    name = "uri"

    def __init__(self, parse: Callable[[str], Any]) -> None:
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Understand it."""
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ValueError as err:
            self.fail(str(err), param, ctx)


def _store(text: str) -> Any:
    from mlflow_server.uris import parse_store_uri

    return parse_store_uri(text, "--to-backend-store-uri")


def _destination(text: str) -> Any:
    from mlflow_server.uris import parse_artifacts_destination

    return parse_artifacts_destination(text, plugin_schemes=frozenset())


@click.command("migrate", epilog=EPILOG)
@setting_options("MLFLOW_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_DESTINATION")
@own_option(
    "--to-backend-store-uri",
    "The database to move to; an empty one.",
    type=_Uri(_store),
    metavar="URI",
)
@own_option(
    "--to-artifacts-destination",
    "Where artifacts go; without it they stay where they are.",
    type=_Uri(_destination),
    metavar="URI",
)
@own_option(
    "--file-store",
    "Move this folder of MLflow's (./mlruns) instead of the configured store.",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
)
@own_option("--dry-run", "Show what would be moved, and change nothing.", is_flag=True)
@common_options
@pass_context
def command(
    context: Context,
    /,
    options: Mapping[str, str],
    to_backend_store_uri: Any,
    to_artifacts_destination: Any,
    file_store: Path | None,
    dry_run: bool,
) -> None:
    """Move the store into another, empty database, and its artifacts to another destination.

    SQLite, PostgreSQL, MySQL and MariaDB into each other, with all ids and times.
    """
    loaded = load(context, options)
    from mlflow_server.backup.migrate import Migration, Request
    from mlflow_server.cli.migrate_report import echo_migrated, migrated_report
    from mlflow_server.cli.progress import show_phases
    from mlflow_server.cli.store import require_store
    from mlflow_server.store.schema import import_lightly

    if to_backend_store_uri is None:
        raise UsageError(
            "nobody said where to: --to-backend-store-uri is missing",
            hint="mlflow-server migrate --to-backend-store-uri postgresql://USER@HOST/DATABASE",
        )
    import_lightly()
    os.environ.update(loaded.credentials)
    with (
        stop_on_sigterm(),
        ExitStack() as stack,
        show_phases(context, IN_BYTES) as progress,
    ):
        source, destination = loaded.settings.store.backend, destination_of(loaded)
        if file_store is not None:
            from mlflow_server.backup.file_store import importing

            source, destination = stack.enter_context(importing(file_store))
        require_store(source, needs_head=False)
        request = Request(source, to_backend_store_uri, destination, to_artifacts_destination)
        migration = Migration(request, os.environ, progress)
        migrated = migration.survey() if dry_run else migration.run()
    report = migrated_report(context, migrated, request, is_dry_run=dry_run)
    finish(context, report, echo_migrated)
