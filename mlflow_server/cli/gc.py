"""`gc`: purge what was deleted longer ago than the TTL."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

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
)
from mlflow_server.errors import (
    BusyError,
    ExitCode,
    OpsError,
    SchemaError,
    UnavailableError,
)
from mlflow_server.report import Item, Report, Status
from mlflow_server.units import render_duration, render_size

if TYPE_CHECKING:
    from mlflow_server.gc.execute import Outcome
    from mlflow_server.gc.plan import Kind, Plan
    from mlflow_server.gc.request import Request
    from mlflow_server.uris import StoreUri

EPILOG = """\b
Examples:
  mlflow-server gc --dry-run
  mlflow-server gc --older-than 7d
  mlflow-server gc --run-ids 0f1e2d3c4b5a69788796a5b4c3d2e1f0 --dry-run --json

Named ids mean exactly these, and the age counts for them as well. Files are removed directly at the
artifact destination: no server and no token is needed. Exit code 3 when files could not be removed;
the next run tries them again."""


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


@click.command("gc", epilog=EPILOG)
@setting_options(
    "MLFLOW_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_DESTINATION", "MLFLOW_TRACKING_GC_TTL"
)
@_ids_option("--run-ids", "runs")
@_ids_option("--experiment-ids", "experiments, with everything in them", are_numbers=True)
@_ids_option("--logged-model-ids", "logged models")
@_switch("--dry-run", "Show what would be done, and change nothing.")
@_switch("--include-referenced", "Also what live model versions need.")
@_switch("--include-unknown-age", "Also runs deleted at an unknown time.")
@_switch("--allow-missing-destination", "Go on when the destination is missing or empty.")
@_switch("--skip-if-busy", "Exit 0 when another operation is running.")
@common_options
@pass_context
def command(
    context: Context,
    /,
    options: Mapping[str, str],
    run_ids: tuple[str, ...],
    experiment_ids: tuple[str, ...],
    logged_model_ids: tuple[str, ...],
    dry_run: bool,
    skip_if_busy: bool,
    **switches: bool,
) -> None:
    """Purge what was deleted longer ago than the TTL: rows and files.

    Runs, logged models and experiments that nobody can restore any more go for good; what a live
    model version needs stays.
    """
    if options.get("MLFLOW_TRACKING_GC_TTL") == "":
        raise click.BadParameter("is empty; write a duration: 30d", param_hint="--older-than")
    loaded = load(context, options)
    from mlflow_server.gc.destination import require_destination
    from mlflow_server.gc.execute import Collection
    from mlflow_server.gc.request import Request
    from mlflow_server.gc.survey import references_reader, survey
    from mlflow_server.store.engine import connect
    from mlflow_server.uris import parse_artifacts_destination

    os.environ.update(loaded.credentials)
    request = Request(
        older_than_s=loaded.settings.gc.ttl,
        run_ids=run_ids,
        experiment_ids=tuple(int(text) for text in experiment_ids),
        logged_model_ids=logged_model_ids,
        **switches,
    )
    uri, registry = loaded.settings.store.backend, loaded.settings.store.registry
    if registry is not None:
        _require_head(registry)
    _require_head(uri)
    destination = parse_artifacts_destination(
        loaded.settings.artifacts.destination, plugin_schemes=frozenset()
    )
    if dry_run:
        with connect(uri, application_name="mlflow-tracking-server gc") as connection:
            plan = survey(connection, request, references_reader(registry))
        warnings = []
        try:
            require_destination(destination, request, os.environ)
        except OpsError as err:
            warnings.append(f"gc would be refused: {err.message}")
        finish(context, _plan_report(context, request, plan, warnings), _echo)
    try:
        outcome = Collection(uri, destination, request, os.environ, registry=registry).run()
    except BusyError as err:
        if not skip_if_busy:
            raise
        finish(context, make_report(context, warnings=[f"skipped: {err.message}"]), _echo)
    finish(context, _outcome_report(context, request, outcome), _echo)


def _require_head(uri: "StoreUri") -> None:
    from mlflow_server.store.engine import sqlite_path
    from mlflow_server.store.revision import SchemaState, read_store_status, require_usable

    if uri.is_sqlite and not sqlite_path(uri).exists():
        raise UnavailableError(
            f"{uri.shown}: the file does not exist", hint=f"point {uri.setting} at the store"
        )
    status = read_store_status(uri)
    require_usable(status, uri)
    if status.state is SchemaState.EMPTY:
        raise SchemaError(
            f"{uri.shown}: the database is empty", hint="mlflow-server serve initialises it"
        )


def _plan_report(
    context: Context, request: "Request", plan: "Plan", warnings: Sequence[str]
) -> Report:
    from mlflow_server.gc.plan import Kind

    going = {kind: plan.total(kind) for kind in Kind}
    items = _items(plan, going, "would go")
    data = _data(request, plan, is_dry_run=True)
    return make_report(context, items, warnings=warnings, data=data)


def _outcome_report(context: Context, request: "Request", outcome: "Outcome") -> Report:
    failed = [
        Item(
            name=f"files:{entry.kind}:{entry.entity_id}",
            status=Status.FAILED,
            detail=reason,
            fix="correct it; the next run tries again",
            facts={"attempts": entry.attempts + 1},
        )
        for entry, reason in outcome.failures
    ]
    data = {
        **_data(request, outcome.plan, is_dry_run=False),
        "purged": {kind.value: count for kind, count in outcome.purged.items() if count},
        "freed": {"files": outcome.freed.files, "bytes": outcome.freed.size_bytes},
        "seconds": {name: round(spent, 3) for name, spent in outcome.seconds.items()},
    }
    return make_report(
        context,
        [*_items(outcome.plan, outcome.purged, "gone"), *failed],
        exit_code=ExitCode.ATTENTION if failed else ExitCode.OK,
        data=data,
    )


def _items(plan: "Plan", going: Mapping["Kind", int], verb: str) -> list[Item]:
    """One item per kind."""
    from mlflow_server.gc.plan import REASONS, Kind

    items = []
    for kind in Kind:
        count, kept = going.get(kind, 0), plan.kept(kind)
        parts = [f"{count} {verb}"]
        parts += [f"{number} stay: {REASONS[reason]}" for reason, number in kept.items()]
        facts = {"going": count, "staying": {reason.value: n for reason, n in kept.items()}}
        items.append(Item(kind.value, Status.OK, "; ".join(parts), facts=facts))
    return items


def _data(request: "Request", plan: "Plan", *, is_dry_run: bool) -> dict[str, Any]:
    experiments: dict[int, dict[str, Any]] = {}
    for (kind, experiment), count in sorted(plan.going.items()):
        entry = experiments.setdefault(experiment, {"going": {}, "staying": {}})
        entry["going"][kind.value] = count
    for (kind, experiment, reason), count in sorted(plan.staying.items()):
        entry = experiments.setdefault(experiment, {"going": {}, "staying": {}})
        entry["staying"].setdefault(kind.value, {})[reason.value] = count
    return {
        "dry_run": is_dry_run,
        "older_than_s": request.older_than_s,
        "database_time_ms": plan.now_ms,
        "experiments": [
            {"experiment_id": str(experiment), **entry} for experiment, entry in experiments.items()
        ],
    }


def _echo(context: Context, report: Report) -> None:
    for warning in report.warnings:
        click.echo(warning)
    if not report.items:
        return
    data = report.data
    click.echo(f"Deleted more than {render_duration(data['older_than_s'])} ago:")
    for item in report.items:
        if item.status is Status.OK:
            click.echo(f"  {item.name:<13} {item.detail}")
    failed = [item for item in report.items if item.status is Status.FAILED]
    for item in failed:
        click.echo(f"  FAIL {item.name}: {item.detail}")
    if data["dry_run"]:
        click.echo("Nothing was changed.")
        return
    freed = data["freed"]
    click.echo(f"Freed {freed['files']} files, {render_size(freed['bytes'])}.")
    if failed:
        click.echo(f"{len(failed)} locations could not be removed; the next run tries again.")
