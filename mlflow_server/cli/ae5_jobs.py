"""`ae5 schedule` and `ae5 run`: commands of a release as jobs."""

from typing import TYPE_CHECKING

import click

from mlflow_server.cli.ae5_shared import (
    Pair,
    dry_run_option,
    open_ae5,
    open_server,
    release_options,
    wait_option,
)
from mlflow_server.cli.groups import Group
from mlflow_server.cli.shared import (
    Context,
    F,
    common_options,
    finish,
    own_option,
    pass_context,
    stop_on_sigterm,
)
from mlflow_server.errors import UsageError

if TYPE_CHECKING:
    from mlflow_server.ae5.release_file import ReleaseFile

_SCHEDULE_EPILOG = """\b
Examples:
  mlflow-server ae5 schedule gc --cron "*/10 * * * *"
  mlflow-server ae5 schedule backup --cron "0 3 * * *" --variable TRACKING_SERVER_BACKUPS=s3://b/x
  mlflow-server ae5 schedule list

Times are UTC. The platform does not keep a run from beginning while the one before is at work: the
store's lock does, and the later one ends with exit code 75."""

_ADD_EPILOG = """\b
Examples:
  mlflow-server ae5 schedule {0} --cron "{1}"
  mlflow-server ae5 schedule {0}

Without --cron as the release file has it. A job that differs is deleted and made anew; one that is
as wanted is left alone. Five plain fields, UTC; a step has to divide its field, as */10 does."""

_LIST_EPILOG = """\b
Examples:
  mlflow-server ae5 schedule list
  mlflow-server ae5 schedule list --json

When each job runs next, and how its last runs ended. Exit code 3 when the last one failed."""

_RUN_EPILOG = """\b
Examples:
  mlflow-server ae5 run gc --variable TRACKING_SERVER_DRY_RUN=true
  mlflow-server ae5 run upgrade --wait-ready 7200
  mlflow-server ae5 run doctor

With the variables that the release file has for it. Waits for the end, prints the log, and ends by
the state of the run: 0 only when it has completed. (ae5 itself ends with 0 when a job failed.)"""


def _variable_option(function: F) -> F:
    return own_option(
        "--variable",
        "A setting for the runs, no secret; may be given again.",
        type=Pair(),
        multiple=True,
        metavar="NAME=VALUE",
    )(function)


@click.group("schedule", cls=Group, epilog=_SCHEDULE_EPILOG)
@common_options
def schedule() -> None:
    """Have commands run by the platform's clock."""


def _add(kind: str, cron_example: str, what: str) -> None:
    @schedule.command(kind, epilog=_ADD_EPILOG.format(kind, cron_example), help=what)
    @release_options
    @own_option("--cron", "When, UTC: five fields.", metavar="CRON")
    @_variable_option
    @dry_run_option
    @common_options
    @pass_context
    def add(
        context: Context,
        wanted: "ReleaseFile",
        cron: str | None,
        variable: tuple[tuple[str, str], ...],
        dry_run: bool,
    ) -> None:
        from mlflow_server.ae5.jobs import Wanted, is_as_wanted, list_jobs
        from mlflow_server.ae5.jobs import schedule as do_schedule
        from mlflow_server.cli.ae5_report import echo_scheduled, scheduled_report

        told = wanted.schedules.get(kind)  # type: ignore[call-overload]
        when = cron or (told.cron if told else None)
        if when is None:
            raise UsageError(
                f"{kind}: no schedule is given, and the release file has none", hint="--cron CRON"
            )
        variables = {**(told.variables if told else {}), **dict(variable)}
        profile = told.resource_profile if told else None
        job = Wanted(f"{wanted.deployment}-{kind}", kind, when, variables, profile)
        server = open_server(context, wanted, 0)
        ae5 = server.ae5
        with stop_on_sigterm():
            project = server.project()
            jobs = list_jobs(ae5)
            there = [each for each in jobs if each.name == job.name]
            is_there = any(is_as_wanted(each, project.id, job) for each in there)
            if not dry_run:
                do_schedule(ae5, jobs, project.id, job)
        report = scheduled_report(
            context, job, is_there=is_there, is_changed=bool(there), is_dry_run=dry_run
        )
        finish(context, report, echo_scheduled)


_add("gc", "*/10 * * * *", "Purge by the clock what was deleted longer ago than the TTL.")
_add("backup", "0 3 * * *", "Make backups by the clock.")


@schedule.command("list", epilog=_LIST_EPILOG)
@common_options
@pass_context
def list_schedules(context: Context) -> None:
    """List the account's scheduled jobs: when they run next, and how the last runs ended."""
    from mlflow_server.cli.ae5_report import echo_schedules, schedules_report

    ae5 = open_ae5(context)
    from mlflow_server.ae5.jobs import last_runs, list_jobs

    jobs = [job for job in list_jobs(ae5) if job.schedule]
    finish(context, schedules_report(context, jobs, last_runs(ae5)), echo_schedules)


@click.command("run", epilog=_RUN_EPILOG)
@click.argument("what", type=click.Choice(["gc", "upgrade", "backup", "doctor"]), metavar="WHAT")
@release_options
@_variable_option
@wait_option(3600)
@dry_run_option
@common_options
@pass_context
def run(
    context: Context,
    what: str,
    wanted: "ReleaseFile",
    variable: tuple[tuple[str, str], ...],
    wait_ready: int,
    dry_run: bool,
) -> None:
    """Run gc, upgrade, backup or doctor as a job now, and wait for its end."""
    from mlflow_server.cli.ae5_report import echo_run, run_report

    server = open_server(context, wanted, wait_ready)
    job = server.job(what, dict(variable))
    with stop_on_sigterm():
        project = server.project()
        ended = None if dry_run else server.run_job(project, what, dict(variable))
    finish(context, run_report(context, job, ended), echo_run)
