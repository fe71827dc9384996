"""`gc`: purge what was deleted longer ago than the TTL."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from mlflow_server.cli.shared import (
    Context,
    F,
    common_options,
    finish,
    load,
    make_report,
    own_option,
    pass_context,
    setting_options,
    stop_on_sigterm,
)
from mlflow_server.errors import (
    BusyError,
    OpsError,
    UsageError,
)
from mlflow_server.settings.load import LoadedSettings, Source
from mlflow_server.units import parse_duration

if TYPE_CHECKING:
    from mlflow_server.gc.execute import Collection
    from mlflow_server.gc.outcome import Outcome
    from mlflow_server.gc.request import Request
    from mlflow_server.uris import ArtifactUri, StoreUri

EPILOG = """\b
Examples:
  mlflow-server gc --dry-run
  mlflow-server gc --older-than 7d
  mlflow-server gc --run-ids 0f1e2d3c4b5a69788796a5b4c3d2e1f0 --dry-run --json
  mlflow-server gc --orphans

Named ids mean exactly these, and the age counts for them as well. Files are removed directly at the
artifact destination: no server and no token is needed, unless nobody said where that is. Exit code
3 when files could not be removed; the next run tries them again."""


# MLflow keeps them in an INTEGER column.
_LARGEST_EXPERIMENT_ID = 2**31 - 1


class _Ids(click.ParamType[tuple[str, ...]]):
    """Ids separated by commas, as `mlflow gc` takes them."""

    name = "ids"

    def __init__(self, *, are_numbers: bool = False) -> None:
        self.are_numbers = are_numbers

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Split; an empty value never means everything."""
        if isinstance(value, tuple):
            return value
        ids = tuple(dict.fromkeys(part.strip() for part in str(value).split(",")))
        if not all(ids):
            self.fail("is empty or has an empty id; write ID or ID,ID", param, ctx)
        if self.are_numbers and not all(part.isdecimal() for part in ids):
            self.fail(f"{value!r} is not a list of numbers; write ID or ID,ID", param, ctx)
        if self.are_numbers and any(int(part) > _LARGEST_EXPERIMENT_ID for part in ids):
            self.fail(f"{value!r}: no experiment has a number that large", param, ctx)
        return ids


class _SetOption(click.Option):
    """An option whose variable counts as soon as it is set: empty ids must not mean everything."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """The variable's text, even an empty one."""
        return os.environ.get(str(self.envvar))


def _ids_option(name: str, what: str, *, are_numbers: bool = False) -> Callable[[F], F]:
    kind = _Ids(are_numbers=are_numbers)
    text = f"Only these {what}."
    return own_option(name, text, cls=_SetOption, type=kind, default=(), metavar="ID,ID")


def _switch(name: str, text: str) -> Callable[[F], F]:
    return own_option(name, text, is_flag=True)


class _DurationType(click.ParamType[float]):
    """`#d#h#m#s`, in seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read it."""
        if isinstance(value, float):
            return value
        try:
            return parse_duration(str(value))
        except ValueError as err:
            self.fail(str(err), param, ctx)


_DURATION = _DurationType()
# Switches that let more go than is safe by itself: told when a forgotten variable sets them.
_BOLD = ("include_referenced", "include_unknown_age", "allow_missing_destination")


@click.command("gc", epilog=EPILOG)
@setting_options(
    "MLFLOW_BACKEND_STORE_URI",
    "MLFLOW_ARTIFACTS_DESTINATION",
    "MLFLOW_TRACKING_GC_TTL",
    "MLFLOW_TRACKING_URI",
)
@_ids_option("--run-ids", "runs")
@_ids_option("--experiment-ids", "experiments, with everything in them", are_numbers=True)
@_ids_option("--logged-model-ids", "logged models")
@_ids_option("--job-ids", "jobs that have ended")
@_switch("--jobs", "Also jobs that ended longer ago than the TTL.")
@_switch("--deleted-versions", "Also the rows of deleted model versions.")
@own_option(
    "--workspace",
    "Only this workspace, where the server has workspaces; else the default one.",
    variable="MLFLOW_WORKSPACE",
    metavar="NAME",
)
@_switch("--all-workspaces", "All workspaces, where the server has workspaces.")
@_switch("--dry-run", "Show what would be done, and change nothing.")
@own_option("--max-runs", "Stop after so many runs.", type=click.IntRange(min=1), metavar="N")
@own_option(
    "--max-seconds",
    "Begin nothing further after this time.",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
)
@_switch("--include-referenced", "Also what live model versions need.")
@_switch("--include-unknown-age", "Also what was deleted at an unknown time.")
@_switch("--allow-missing-destination", "Go on when the destination is missing or empty.")
@_switch("--offline", "No server uses the store: SQLite may be locked for long.")
@_switch("--skip-if-busy", "Exit 0 when another operation is running.")
@own_option(
    "--orphans",
    "Instead of collecting: list folders of the destination that no row knows, or delete them.",
    is_flag=False,
    flag_value="list",
    type=click.Choice(["list", "delete"]),
)
@own_option(
    "--orphan-grace",
    "Younger orphans may be somebody's who is just writing them.",
    type=_DURATION,
    default="24h",
    show_default=True,
    metavar="DURATION",
)
@_switch("--yes", "Do not ask for confirmation.")
@own_option(
    "--metrics-file",
    "Write the result for Prometheus' textfile collector.",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
)
@common_options
@pass_context
def command(
    context: Context,
    /,
    options: Mapping[str, str],
    workspace: str | None,
    all_workspaces: bool,
    dry_run: bool,
    skip_if_busy: bool,
    orphans: str | None,
    orphan_grace: float,
    yes: bool,
    metrics_file: Path | None,
    experiment_ids: tuple[str, ...],
    **wanted: Any,
) -> None:
    """Purge what was deleted longer ago than the TTL: rows and files.

    Runs, logged models and experiments that nobody can restore any more go for good; what a live
    model version needs stays.
    """
    if options.get("MLFLOW_TRACKING_GC_TTL") == "":
        raise click.BadParameter("is empty; write a duration: 30d", param_hint="--older-than")
    if metrics_file is not None and not metrics_file.absolute().parent.is_dir():
        raise click.BadParameter("its folder does not exist", param_hint="--metrics-file")
    loaded = load(context, options)
    from mlflow_server.cli.store import require_store
    from mlflow_server.gc.execute import Collection
    from mlflow_server.gc.request import Request
    from mlflow_server.gc.workspace import choose_workspace

    os.environ.update(loaded.credentials)
    environ = {**os.environ, **_server_variables(loaded)}
    uri, registry = loaded.settings.store.backend, loaded.settings.store.registry
    if registry is not None:
        require_store(registry, needs_head=True)
    require_store(uri, needs_head=True)
    request = Request(
        older_than_s=loaded.settings.gc.ttl,
        experiment_ids=tuple(int(text) for text in experiment_ids),
        workspace=choose_workspace(uri, environ, workspace, all_workspaces=all_workspaces),
        **wanted,
    )
    destination = _destination(loaded)
    if orphans is not None:
        _treat_orphans(
            context,
            uri,
            destination,
            environ,
            grace_s=orphan_grace,
            deletes=orphans == "delete" and not dry_run,
            is_confirmed=yes,
        )
    collection = Collection(uri, destination, request, environ, registry=registry)
    if dry_run:
        _show_plan(context, collection, request)
    with stop_on_sigterm():
        _collect(context, collection, request, metrics_file, skip_if_busy=skip_if_busy)


def _show_plan(context: Context, collection: "Collection", request: "Request") -> None:
    from mlflow_server.cli.gc_report import echo_report, plan_report

    warnings = _bold_variables()
    measures = True
    try:
        collection.require_destination()
    except OpsError as err:
        warnings.append(f"gc would be refused: {err.message}")
        measures = False
    plan = collection.plan(measures=measures)
    finish(context, plan_report(context, request, plan, warnings), echo_report)


def _collect(
    context: Context,
    collection: "Collection",
    request: "Request",
    metrics_file: Path | None,
    *,
    skip_if_busy: bool,
) -> None:
    from mlflow_server.cli.gc_report import echo_report, outcome_report
    from mlflow_server.cli.progress import show_progress

    try:
        with show_progress(context, ("rows", "files")) as progress:
            outcome = collection.run(progress)
    except OpsError as err:
        is_skipped = skip_if_busy and isinstance(err, BusyError)
        if metrics_file is not None:
            _write_metrics(metrics_file, 0 if is_skipped else int(err.exit_code), None)
        if not is_skipped:
            raise
        skipped = make_report(context, warnings=[f"skipped: {err.message}"])
        finish(context, skipped, echo_report)
    report = outcome_report(context, request, outcome, _bold_variables())
    if metrics_file is not None:
        _write_metrics(metrics_file, int(report.exit_code), outcome)
    finish(context, report, echo_report)


def _write_metrics(path: Path, exit_code: int, outcome: "Outcome | None") -> None:
    from mlflow_server.gc.textfile import write_textfile

    write_textfile(path, exit_code, outcome)


def _treat_orphans(
    context: Context,
    uri: "StoreUri",
    destination: "ArtifactUri",
    environ: Mapping[str, str],
    *,
    grace_s: float,
    deletes: bool,
    is_confirmed: bool,
) -> None:
    from mlflow_server.cli.gc_report import echo_orphans, orphans_report
    from mlflow_server.gc.orphans import delete_orphans, find_orphans

    if deletes and not is_confirmed:
        if not sys.stdin.isatty():
            raise UsageError(
                "--orphans=delete removes what no row knows, for good",
                hint="look at --orphans first; then add --yes",
            )
        click.confirm("Remove every folder that no row of the store knows?", abort=True, err=True)
    if deletes:
        with stop_on_sigterm():
            found = delete_orphans(uri, destination, environ, grace_s)
    else:
        found = find_orphans(uri, destination, environ, grace_s)
    finish(context, orphans_report(context, found, deleted=deletes), echo_orphans)


def _server_variables(loaded: LoadedSettings) -> dict[str, str]:
    """How to reach the tracking server, wherever that was set."""
    server = loaded.settings.client
    found = {}
    if server.tracking_uri:
        found["MLFLOW_TRACKING_URI"] = server.tracking_uri
    if server.tracking_token is not None:
        found["MLFLOW_TRACKING_TOKEN"] = server.tracking_token.get_secret_value()
    return found


def _destination(loaded: LoadedSettings) -> "ArtifactUri":
    """Where artifacts are. A default is no answer: the server's may be another."""
    from mlflow_server.uris import parse_artifacts_destination

    text = loaded.settings.artifacts.destination
    if loaded.source_of("MLFLOW_ARTIFACTS_DESTINATION") in (Source.DEFAULT, Source.PROJECT):
        text = "mlflow-artifacts:/"
    return parse_artifacts_destination(text, plugin_schemes=frozenset())


def _bold_variables() -> list[str]:
    """What to know about switches that came from a variable."""
    ctx = click.get_current_context()
    options = {option.name: option for option in ctx.command.params}
    return [
        f"{options[name].envvar} is set: {options[name].opts[0]} is in force"
        for name in _BOLD
        if ctx.params.get(name) and ctx.get_parameter_source(name) is ParameterSource.ENVIRONMENT
    ]
