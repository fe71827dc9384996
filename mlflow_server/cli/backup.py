"""`backup`: make, list, verify and prune backups."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import click

from mlflow_server.cli.groups import Group
from mlflow_server.cli.shared import (
    Context,
    F,
    common_options,
    finish,
    load,
    own_option,
    pass_context,
    setting_options,
    stop_on_sigterm,
)
from mlflow_server.errors import SettingsError, UnavailableError, UsageError
from mlflow_server.settings.load import LoadedSettings

if TYPE_CHECKING:
    from mlflow_server.backup.shelf import Shelf
    from mlflow_server.uris import ArtifactUri, StoreUri

# Phases of work that are measured in bytes.
IN_BYTES = ("artifacts", "packs")

EPILOG = """\b
Examples:
  mlflow-server backup create --to /backups
  mlflow-server backup list s3://company-backups/mlflow
  mlflow-server backup verify /backups/latest --drill
  mlflow-server backup prune /backups --keep-daily 7 --keep-weekly 4 --dry-run

A backup is one folder with the database and the artifacts that it names; what several backups share
is kept once beside them. How to restore one: mlflow-server restore --help"""

_CREATE_EPILOG = """\b
Examples:
  mlflow-server backup create --to /backups
  mlflow-server backup create --to s3://company-backups/mlflow --label before-upgrade
  mlflow-server backup create --to /backups --dry-run

Servers may go on writing: the database is read as it is at one moment, the artifacts after it.
Artifacts that the newest backup has unchanged are not read again; --full reads all. Exit code 3
when artifacts could not be read."""

_LIST_EPILOG = """\b
Examples:
  mlflow-server backup list /backups
  mlflow-server backup list s3://company-backups/mlflow --json

Without a PLACE it is TRACKING_SERVER_BACKUPS."""

_VERIFY_EPILOG = """\b
Examples:
  mlflow-server backup verify /backups/latest
  mlflow-server backup verify /backups/20261121T134115Z --quick
  mlflow-server backup verify latest --drill

Reads every byte and compares checksums; exit code 65 when something is damaged. --quick reads the
tables and looks whether the rest is there; --drill also restores the database into a throw-away
one and compares."""

_PRUNE_EPILOG = """\b
Examples:
  mlflow-server backup prune /backups --keep-last 7
  mlflow-server backup prune /backups --keep-daily 7 --keep-weekly 4 --keep-monthly 12 --dry-run

A backup stays when any of the rules wants it. What other backups need of a removed one stays.
Without a PLACE it is TRACKING_SERVER_BACKUPS."""


@contextmanager
def open_shelf(loaded: LoadedSettings, text: str | None = None) -> Iterator["Shelf"]:
    """The place with the backups.

    Args:
        loaded: Says where it is.
        text: Another place.

    Raises:
        SettingsError: Nobody said where it is.
    """
    from mlflow_server.artifacts.files import open_files
    from mlflow_server.backup.shelf import Shelf
    from mlflow_server.uris import mask_uri, parse_artifacts_destination

    text = text or loaded.settings.backup.destination
    if text is None:
        raise SettingsError(
            ["TRACKING_SERVER_BACKUPS: is not set: nobody said where backups are"],
            hint="set it, or name the place: backup create --to FOLDER, backup list FOLDER, "
            "restore FOLDER/latest",
        )
    try:
        uri = parse_artifacts_destination(text, plugin_schemes=frozenset())
    except ValueError as err:
        raise UsageError(
            f"{mask_uri(text)}: {err}", hint="name a folder or an object store: s3://bucket/backups"
        ) from None
    with closing(open_files(uri, os.environ, subject="TRACKING_SERVER_BACKUPS")) as files:
        yield Shelf(files, uri)


@contextmanager
def find_archive(loaded: LoadedSettings, archive: str) -> Iterator[tuple["Shelf", str]]:
    """The place of a backup, and its name there.

    Args:
        loaded: Says where backups are when only a name is given.
        archive: `latest`, a name, or where it is.

    Raises:
        UsageError: It names no backup.
    """
    from mlflow_server.backup.names import is_id

    place, _, name = archive.rstrip("/").rpartition("/")
    if name != "latest" and not is_id(name):
        raise UsageError(
            f"{archive}: is the name of no backup",
            hint="write PLACE/latest, or PLACE/NAME with a name such as 20261121T134115Z; "
            "mlflow-server backup list shows what there is",
        )
    with open_shelf(loaded, place or None) as shelf:
        if name == "latest":
            backups = shelf.backups()
            if not backups:
                raise UnavailableError(
                    f"{shelf.shown}: there is no backup", hint="mlflow-server backup create"
                )
            name = backups[-1].id
        yield shelf, name


def databases_of(loaded: LoadedSettings) -> "dict[str, StoreUri]":
    """The databases of a server, by what they are; one that has several parts is there once."""
    from mlflow_server.backup.auth import find_auth_store
    from mlflow_server.backup.targets import is_same

    store = loaded.settings.store
    databases = {"backend": store.backend}
    others = {"registry": store.registry, "auth": find_auth_store(os.environ)}
    for name, uri in others.items():
        if uri is not None and not any(is_same(uri, known) for known in databases.values()):
            databases[name] = uri
    return databases


def destination_of(loaded: LoadedSettings) -> "ArtifactUri":
    """Where the server keeps artifacts."""
    from mlflow_server.uris import parse_artifacts_destination

    text = loaded.settings.artifacts.destination
    return parse_artifacts_destination(text, plugin_schemes=frozenset())


def place_argument(function: F) -> F:
    """Where backups are, when that is not set."""
    return click.argument("place", required=False)(function)


def archive_argument(function: F) -> F:
    """Which backup; a platform's jobs have variables, but no arguments."""
    return click.argument("archive", default="latest", envvar="TRACKING_SERVER_ARCHIVE")(function)


def _switch(name: str, text: str) -> Callable[[F], F]:
    return own_option(name, text, is_flag=True)


@click.group("backup", cls=Group, epilog=EPILOG)
def command() -> None:
    """Make, list, verify and prune backups of database and artifacts."""


@command.command("create", epilog=_CREATE_EPILOG)
@setting_options(
    "MLFLOW_BACKEND_STORE_URI",
    "MLFLOW_REGISTRY_STORE_URI",
    "MLFLOW_ARTIFACTS_DESTINATION",
    "TRACKING_SERVER_BACKUPS",
)
@own_option("--label", "What to call it beside its time.", metavar="NAME")
@_switch("--no-artifacts", "Only the database.")
@_switch("--incremental", "Read only artifacts that are new (this is the default).")
@_switch("--full", "Read and store every artifact anew.")
@_switch("--dry-run", "Show what would be done, and change nothing.")
@common_options
@pass_context
def create(
    context: Context,
    /,
    options: Mapping[str, str],
    label: str | None,
    no_artifacts: bool,
    incremental: bool,
    full: bool,
    dry_run: bool,
) -> None:
    """Make a backup of the database and the artifacts that it names."""
    from mlflow_server.backup.names import Scope, is_label

    if full and incremental:
        raise click.UsageError("--full and --incremental exclude each other")
    if label is not None and not is_label(label):
        raise click.BadParameter(
            "has to be letters, digits, '.', '_' and '-', up to 64", param_hint="--label"
        )
    loaded = load(context, options)
    from mlflow_server.backup.create import Creation, Request
    from mlflow_server.cli.backup_report import created_report, echo_created
    from mlflow_server.cli.progress import is_watched, show_phases
    from mlflow_server.cli.store import require_store

    os.environ.update(loaded.credentials)
    databases = databases_of(loaded)
    for name, uri in databases.items():
        if name != "auth":
            require_store(uri, needs_head=False)
    scope = Scope.FULL if full else Scope.INCREMENTAL
    request = Request(databases, label, not no_artifacts, scope, is_watched(context))
    with (
        stop_on_sigterm(),
        open_shelf(loaded) as shelf,
        show_phases(context, IN_BYTES) as progress,
    ):
        creation = Creation(request, destination_of(loaded), os.environ, shelf, progress)
        created = creation.survey() if dry_run else creation.run()
    report = created_report(context, created, shelf.shown, is_dry_run=dry_run)
    finish(context, report, echo_created)


@command.command("list", epilog=_LIST_EPILOG)
@place_argument
@common_options
@pass_context
def list_(context: Context, place: str | None) -> None:
    """List the backups at PLACE, a folder or an object store."""
    loaded = load(context)
    from mlflow_server.cli.backup_report import echo_list, list_report

    os.environ.update(loaded.credentials)
    with open_shelf(loaded, place) as shelf:
        backups = shelf.backups()
    finish(context, list_report(context, backups, shelf.shown), echo_list)


@command.command("verify", epilog=_VERIFY_EPILOG)
@archive_argument
@_switch("--quick", "Of artifacts only whether they are there.")
@_switch("--drill", "Also restore the database into a throw-away one, and compare.")
@common_options
@pass_context
def verify(context: Context, archive: str, quick: bool, drill: bool) -> None:
    """Find out whether a backup is as it was written.

    ARCHIVE is PLACE/NAME or PLACE/latest [env: TRACKING_SERVER_ARCHIVE]; without a PLACE it is
    TRACKING_SERVER_BACKUPS, without any latest.
    """
    loaded = load(context)
    from mlflow_server.backup.verify import Verification
    from mlflow_server.cli.backup_report import echo_verified, verified_report
    from mlflow_server.cli.progress import show_phases
    from mlflow_server.store.schema import importing_lightly

    os.environ.update(loaded.credentials)
    with (
        importing_lightly(),
        stop_on_sigterm(),
        find_archive(loaded, archive) as (shelf, name),
        show_phases(context, IN_BYTES) as progress,
    ):
        verification = Verification(shelf, name, progress)
        verified = verification.run(is_quick=quick, drills=drill)
    finish(context, verified_report(context, verified, f"{shelf.shown}/{name}"), echo_verified)


def _keep_option(rule: str, what: str) -> Callable[[F], F]:
    text = f"Keep {what}."
    return own_option(f"--keep-{rule}", text, type=click.IntRange(min=0), default=0, metavar="N")


@command.command("prune", epilog=_PRUNE_EPILOG)
@place_argument
@_keep_option("last", "so many of the newest")
@_keep_option("daily", "the newest of each of so many days")
@_keep_option("weekly", "the newest of each of so many weeks")
@_keep_option("monthly", "the newest of each of so many months")
@own_option(
    "--keep-at-least",
    "Never remove so many of the newest, whatever else is said.",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
)
@_switch("--dry-run", "Show what would be done, and change nothing.")
@common_options
@pass_context
def prune(
    context: Context,
    place: str | None,
    keep_last: int,
    keep_daily: int,
    keep_weekly: int,
    keep_monthly: int,
    keep_at_least: int,
    dry_run: bool,
) -> None:
    """Remove old backups at PLACE by rules, and what no other backup needs of them."""
    from mlflow_server.backup.retention import Retention

    retention = Retention(keep_last, keep_daily, keep_weekly, keep_monthly, keep_at_least)
    if not retention:
        raise click.UsageError("say what to keep, for example --keep-last 7")
    loaded = load(context)
    from mlflow_server.backup.prune import prune_backups
    from mlflow_server.cli.backup_report import echo_pruned, pruned_report

    os.environ.update(loaded.credentials)
    with stop_on_sigterm(), open_shelf(loaded, place) as shelf:
        pruned = prune_backups(shelf, retention, is_dry_run=dry_run)
    finish(context, pruned_report(context, pruned, shelf.shown, is_dry_run=dry_run), echo_pruned)
