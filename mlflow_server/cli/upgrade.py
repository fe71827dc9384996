"""`upgrade`: the schema of the store to this release."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlflow_server.cli.backup import databases_of
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
from mlflow_server.errors import OpsError, UsageError

if TYPE_CHECKING:
    from mlflow_server.upgrade.request import Request

EPILOG = """\b
Examples:
  mlflow-server upgrade --check
  mlflow-server upgrade --dry-run
  mlflow-server upgrade

Stop the servers of the store first: --check may run beside them. A backup is made before; the
report says where it is. Exit code 3 of --check: there is something to do; 4: the store is newer, or
none of MLflow's. After a failure the store is as it was."""


@click.command("upgrade", epilog=EPILOG)
@setting_options("MLFLOW_BACKEND_STORE_URI", "MLFLOW_REGISTRY_STORE_URI")
@own_option(
    "--check", "Only say what is pending; takes a second and changes nothing.", is_flag=True
)
@own_option("--dry-run", "Show what would be done, and change nothing.", is_flag=True)
@own_option(
    "--online",
    "On PostgreSQL: while servers are connected, which are kept waiting.",
    is_flag=True,
)
@own_option(
    "--prepare",
    "Only fill columns for traces, on PostgreSQL: beside servers, so that the upgrade is shorter.",
    is_flag=True,
)
@own_option(
    "--wait",
    "How long to wait for another operation on the store, seconds.",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
)
@own_option("--undo", "Go back to the backup of the last upgrade.", is_flag=True)
@own_option(
    "--discard-changes",
    "With --undo: also when rows were written since, which are lost.",
    is_flag=True,
)
@own_option("--yes", "Do not ask for confirmation.", is_flag=True)
@own_option(
    "--backup-folder",
    "Where the backup goes; without it beside a SQLite file, or below data/.",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
)
@common_options
@pass_context
def command(
    context: Context,
    /,
    options: Mapping[str, str],
    check: bool,
    dry_run: bool,
    online: bool,
    prepare: bool,
    wait: int,
    undo: bool,
    discard_changes: bool,
    yes: bool,
    backup_folder: Path | None,
) -> None:
    """Bring the store's schema to this release, with a backup before, all or nothing."""
    loaded = load(context, options)
    from mlflow_server.cli.progress import show_phases
    from mlflow_server.cli.upgrade_report import (
        checked_report,
        echo_checked,
        echo_upgraded,
        upgraded_report,
    )
    from mlflow_server.upgrade.look import look
    from mlflow_server.upgrade.request import Request

    if check and (dry_run or undo):
        raise UsageError("--check goes with neither --dry-run nor --undo", hint="leave it away")
    if prepare and (check or undo or online):
        raise UsageError("--prepare goes with --dry-run only", hint="leave the others away")
    if discard_changes and not undo:
        raise UsageError("--discard-changes goes with --undo only", hint="add --undo")
    os.environ.update(loaded.credentials)
    databases = databases_of(loaded)
    folder = backup_folder.absolute() if backup_folder else None
    request = Request(databases, folder, is_online=online, wait_s=wait)
    if undo:
        _undo(context, request, dry_run=dry_run, discards=discard_changes, asks=not yes)
        return
    if check or dry_run:
        finish(context, checked_report(context, look(databases)), echo_checked)
    from mlflow_server.store.schema import importing_lightly
    from mlflow_server.upgrade.execute import PREPARING, Upgrade

    with importing_lightly(), stop_on_sigterm(), show_phases(context, ()) as progress:

        def tell(name: str, what: str, done: int, total: int) -> None:
            progress(f"{what if what == PREPARING else 'revisions'} of {name}", done, total)

        upgrade = Upgrade(request, tell)
        result = upgrade.prepare() if prepare else upgrade.run()
    finish(context, upgraded_report(context, result), echo_upgraded)


def _undo(
    context: Context, request: "Request", *, dry_run: bool, discards: bool, asks: bool
) -> None:
    from mlflow_server.cli.upgrade_report import echo_undone, undone_report
    from mlflow_server.store.schema import importing_lightly
    from mlflow_server.upgrade.undo import Undo, Undoable

    def agree(found: Sequence[Undoable]) -> None:
        nonlocal asks
        lost = {f"{n} of {t}": n for each in found for t, n in each.written.items()}
        if not lost:
            return
        told = f"{sum(lost.values())} rows were written since the upgrade: {', '.join(lost)}"
        if not discards:
            raise OpsError(told, hint="they would be lost: --discard-changes")
        if asks:
            if not sys.stdin.isatty():
                raise UsageError(told, hint="without a terminal: --discard-changes --yes")
            click.confirm(f"{told}. Lose them?", abort=True, err=True)
            asks = False

    with importing_lightly(), stop_on_sigterm():
        undoing = Undo(request)
        undone = undoing.look() if dry_run else undoing.run(agree)
    finish(context, undone_report(context, undone, is_dry_run=dry_run), echo_undone)
