"""The commands that only name a method and a record, as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from .calling import call
from .options import identifier, with_options, yes

_Decorator = Callable[[Any], Any]


@dataclass(frozen=True)
class Simple:
    """A command.

    Args:
        path: Its names, the group first.
        method: What it calls.
        kind: Of the record that it is about; empty for none.
        required: Exactly one such record has to be named.
        with_revision: A revision may be named too.
        options: Which it has beside those that all have.
        fixed: More for the method.
        confirm: A question to ask first.
        before: Said on stderr before.
        after: Said on stderr afterwards.
    """

    path: str
    method: str
    kind: str = ""
    required: bool = True
    with_revision: bool = False
    options: Sequence[_Decorator] = ()
    fixed: Sequence[tuple[str, Any]] = ()
    confirm: str = ""
    before: str = ""
    after: str = ""


_COLLABORATORS = click.option("--collaborators", is_flag=True)
_K8S = click.option("--k8s", is_flag=True)
_PUBLIC = click.option("--public/--private", is_flag=True, default=None)
_PROFILE = click.option("--resource-profile")
_FILE = click.option("--filename", default="")
_JOB_TEXTS = [click.option(f"--{name}") for name in ("name", "command", "schedule")]
_LOGS = [
    click.option("--app", "which", flag_value="app", default=True),
    click.option("--proxy", "which", flag_value="proxy"),
    click.option("--events", "which", flag_value="events"),
]
START = [
    *(click.option(f"--{name}") for name in ("name", "endpoint", "command", "resource-profile")),
    click.option("--public/--private", is_flag=True),
    *(click.option(f"--{name}", is_flag=True) for name in ("wait", "stop-on-error", "open")),
    click.option("--frame", is_flag=True),
]


def _parts() -> list[Simple]:
    """What belongs to a project."""
    return [
        Simple(f"project {part}", "project_part", "project", fixed=[("part", part)])
        for part in ("deployments", "jobs", "runs")
    ]


COMMANDS = [
    Simple("project list", "project_list", "project", False, options=[_COLLABORATORS]),
    Simple("project info", "project_info", "project", options=[_COLLABORATORS]),
    Simple(
        "project patch",
        "project_patch",
        "project",
        options=[click.option("--name"), click.option("--editor"), _PROFILE],
    ),
    Simple(
        "project activity",
        "project_activity",
        "project",
        options=[
            click.option("--limit", type=int),
            click.option("--all", is_flag=True),
            click.option("--latest", is_flag=True),
        ],
    ),
    Simple("project status", "project_activity", "project", fixed=[("latest", True)]),
    Simple(
        "project delete",
        "project_delete",
        "project",
        confirm="Delete project {ident}",
        before="Deleting project {ident}...",
        after="deleted.",
    ),
    *_parts(),
    Simple("project revision list", "revision_list", "project", with_revision=True),
    Simple("project revision info", "revision_info", "project", with_revision=True),
    Simple("project revision commands", "revision_commands", "project", with_revision=True),
    Simple(
        "deployment list", "deployment_list", "deployment", False, options=[_COLLABORATORS, _K8S]
    ),
    Simple("deployment info", "deployment_info", "deployment", options=[_K8S]),
    Simple("deployment logs", "deployment_logs", "deployment", options=_LOGS),
    Simple("deployment token", "deployment_token", "deployment"),
    Simple(
        "deployment patch",
        "deployment_patch",
        "deployment",
        with_revision=True,
        options=[_PUBLIC, _PROFILE],
    ),
    Simple(
        "deployment restart",
        "deployment_restart",
        "deployment",
        options=START[-4:],
        before="Restarting deployment {ident}...",
        after="restarted.",
    ),
    Simple(
        "deployment stop",
        "deployment_stop",
        "deployment",
        confirm="Stop deployment {ident}",
        before="Stopping {ident}...",
        after="stopped.",
    ),
    Simple("endpoint list", "endpoint_list", "endpoint", False),
    Simple("endpoint info", "endpoint_info", "endpoint"),
    Simple("job list", "job_list", "job", False),
    Simple("job info", "job_info", "job"),
    Simple("job runs", "job_runs", "job"),
    Simple("job run", "job_run", "job"),
    Simple("job pause", "job_pause", "job"),
    Simple("job unpause", "job_unpause", "job"),
    Simple(
        "job delete",
        "job_delete",
        "job",
        confirm="Delete job {ident}",
        before="Deleting {ident}...",
        after="deleted.",
    ),
    Simple("run list", "run_list", "run", False, options=[_K8S]),
    Simple("run info", "run_info", "run", options=[_K8S]),
    Simple("run log", "run_log", "run"),
    Simple(
        "run stop",
        "run_stop",
        "run",
        confirm="Stop run {ident}",
        before="Stopping run {ident}...",
        after="stopped.",
    ),
    Simple(
        "run delete",
        "run_delete",
        "run",
        confirm="Delete run {ident}",
        before="Deleting run {ident}...",
        after="deleted.",
    ),
    Simple("resource-profile list", "resource_profile_list", "resource_profile", False),
    Simple("resource-profile info", "resource_profile_info", "resource_profile"),
    Simple("secret list", "secret_list"),
]


def make(simple: Simple) -> click.Command:
    """The command of click."""

    def run(**told: Any) -> None:
        call(
            simple.method,
            confirm=simple.confirm,
            before=simple.before,
            after=simple.after,
            **dict(simple.fixed),
            **told,
        )

    run = with_options(run)
    if simple.confirm:
        run = yes(run)
    for option in reversed(simple.options):
        run = option(run)
    if simple.kind:
        named = identifier(
            simple.kind, required=simple.required, with_revision=simple.with_revision
        )
        run = named(run)
    return click.command(name=simple.path.rsplit(" ", 1)[-1])(run)
