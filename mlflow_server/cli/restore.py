"""`restore`: an archive into an empty store."""

import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from mlflow_server.cli.backup import (
    IN_BYTES,
    archive_argument,
    databases_of,
    destination_of,
    find_archive,
)
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
  mlflow-server restore /backups/latest --dry-run
  mlflow-server restore s3://company-backups/mlflow/20261121T134115Z
  mlflow-server restore latest --backend-store-uri postgresql://mlflow@db/mlflow
  mlflow-server restore /backups/latest --experiments churn,fraud --no-artifacts

Into any supported database from any other. The archive is verified before anything is changed, and
the store appears in one step at the end: interrupted, the same command goes on. Locations that
rows name outside of the destination are only written to where --artifact-map says so. With
--replace, a backup of the store that is there is made beside the archive first."""


class _Map(click.ParamType[tuple[str, str]]):
    """`OLD=NEW`: what becomes of locations that begin with OLD."""

    name = "map"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Split."""
        if isinstance(value, tuple):
            return value
        old, separator, new = str(value).partition("=")
        if not (old.strip() and separator and new.strip()):
            self.fail(f"{value!r} is not of the form OLD=NEW", param, ctx)
        return old.strip(), new.strip()


class Names(click.ParamType[tuple[str, ...]]):
    """Names separated by commas."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Split; an empty value never means everything."""
        if isinstance(value, tuple):
            return value
        names = tuple(dict.fromkeys(part.strip() for part in str(value).split(",")))
        if not all(names):
            self.fail("is empty or has an empty name; write NAME or NAME,NAME", param, ctx)
        return names


@click.command("restore", epilog=EPILOG)
@archive_argument
@setting_options(
    "MLFLOW_BACKEND_STORE_URI",
    "MLFLOW_REGISTRY_STORE_URI",
    "MLFLOW_ARTIFACTS_DESTINATION",
)
@own_option(
    "--artifact-map",
    "What becomes of locations that begin with OLD; may be given again.",
    type=_Map(),
    multiple=True,
    metavar="OLD=NEW",
)
@own_option(
    "--experiments",
    "Only these experiments, by name or id, with everything in them.",
    type=Names(),
    default=(),
    metavar="NAME,NAME",
)
@own_option(
    "--registered-models",
    "Only these registered models, with the runs and logged models of their versions.",
    type=Names(),
    default=(),
    metavar="NAME,NAME",
)
@own_option("--no-artifacts", "Only the database.", is_flag=True)
@own_option(
    "--replace",
    "Replace what is there; what becomes of it is told below.",
    is_flag=True,
)
@own_option("--yes", "Do not ask for confirmation.", is_flag=True)
@own_option("--dry-run", "Show what would be done, and change nothing.", is_flag=True)
@common_options
@pass_context
def command(
    context: Context,
    /,
    archive: str,
    options: Mapping[str, str],
    artifact_map: tuple[tuple[str, str], ...],
    experiments: tuple[str, ...],
    registered_models: tuple[str, ...],
    no_artifacts: bool,
    replace: bool,
    yes: bool,
    dry_run: bool,
) -> None:
    """Restore a backup into the configured store and artifact destination.

    ARCHIVE is PLACE/NAME or PLACE/latest [env: TRACKING_SERVER_ARCHIVE]; without a PLACE it is
    TRACKING_SERVER_BACKUPS, without any latest. Ids, times and deleted things are as they were; a
    backup of an older release is upgraded on the way.
    """
    loaded = load(context, options)
    from mlflow_server.backup.restore import Request, Restoration
    from mlflow_server.backup.selection import Selection
    from mlflow_server.cli.progress import show_phases
    from mlflow_server.cli.restore_report import echo_restored, restored_report
    from mlflow_server.store.schema import importing_lightly

    os.environ.update(loaded.credentials)
    if replace and not dry_run and not yes:
        if not sys.stdin.isatty():
            raise UsageError(
                "--replace removes the store that is there",
                hint="look at --dry-run first; then add --yes",
            )
        click.confirm("Replace the store that is there?", abort=True, err=True)
    with (
        importing_lightly(),
        stop_on_sigterm(),
        find_archive(loaded, archive) as (shelf, name),
        show_phases(context, IN_BYTES) as progress,
    ):
        request = Request(
            name,
            databases_of(loaded),
            artifact_map,
            Selection(experiments, registered_models),
            wants_artifacts=not no_artifacts,
            replaces=replace,
        )
        restoration = Restoration(request, destination_of(loaded), os.environ, shelf, progress)
        restored = restoration.survey() if dry_run else restoration.run()
    finish(context, restored_report(context, restored, is_dry_run=dry_run), echo_restored)
