"""What a cluster knows: projects, deployments, jobs and runs. Data only.

Ids: `a0-` project, `a2-` deployment, job and run, each plus 32 hex digits. Inside the platform a
thing is known by the digits alone.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Where the platform keeps projects; an address that means nothing outside.
STORAGE = "http://anaconda-enterprise-ap-storage"

# States in which a pod is not done.
ACTIVE = frozenset({"initial", "starting", "started", "running", "stopping"})


def new_hex() -> str:
    """The digits of a new id."""
    return uuid.uuid4().hex


def now() -> str:
    """The time as records have it."""
    return datetime.datetime.now(datetime.UTC).isoformat()


@dataclass(frozen=True)
class Command:
    """One command of an `anaconda-project.yml`.

    Args:
        name: How it is asked for.
        unix: The line for `/bin/sh -c`.
        http_options: `supports_http_options`; None when it is not written.
        env_spec: Which environment it runs in.
        variables: Defaults of this command alone.
    """

    name: str
    unix: str
    http_options: bool | None = None
    env_spec: str = ""
    variables: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Revision:
    """A state of a project.

    Args:
        name: Its tag.
        created: When, as records have it.
        archive: The file that was uploaded.
        commands: In the order of the file; the first is the default one.
        variables: Defaults by name; None for those that are required.
    """

    name: str
    created: str
    archive: Path
    commands: tuple[Command, ...]
    variables: Mapping[str, str | None]

    def command(self, name: str) -> Command | None:
        """The command of that name, if there is one."""
        return next((each for each in self.commands if each.name == name), None)


@dataclass
class Project:
    """A project; `revisions` has the oldest first, `activity` too."""

    hex: str
    name: str
    owner: str
    resource_profile: str
    created: str
    updated: str
    editor: str = "jupyterlab"
    revisions: list[Revision] = field(default_factory=list)
    activity: list[dict[str, Any]] = field(default_factory=list)
    collaborators: list[dict[str, str]] = field(default_factory=list)

    @property
    def id(self) -> str:
        """As clients know it."""
        return f"a0-{self.hex}"

    @property
    def url(self) -> str:
        """As the platform knows it."""
        return f"{STORAGE}/projects/{self.hex}"

    def revision(self, name: str) -> Revision | None:
        """The revision of that name; `latest` is the newest one."""
        if name == "latest":
            return self.revisions[-1]
        return next((each for each in self.revisions if each.name == name), None)


@dataclass
class Pod:
    """What deployments and runs have in common.

    Args:
        hex: The digits of its id.
        name: Chosen by the user.
        owner: Whose secrets it gets.
        project: What is run.
        revision: As it was asked for: a name, or `latest`.
        command: Of that revision.
        resource_profile: Its name.
    """

    hex: str
    name: str
    owner: str
    project: Project
    revision: str
    command: str
    resource_profile: str
    created: str = field(default_factory=now)
    updated: str = field(default_factory=now)
    state: str = "initial"
    status_text: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    log_file: Path | None = None

    @property
    def id(self) -> str:
        """As clients know it."""
        return f"a2-{self.hex}"

    @property
    def is_active(self) -> bool:
        """It has not come to its end."""
        return self.state in ACTIVE

    @property
    def log(self) -> str:
        """What it has written so far, stdout and stderr."""
        if self.log_file is None or not self.log_file.exists():
            return ""
        return self.log_file.read_text("utf-8", errors="replace")

    def become(self, state: str, status_text: str) -> None:
        """Another state."""
        self.state, self.status_text, self.updated = state, status_text, now()


@dataclass
class Deployment(Pod):
    """A deployment.

    Args:
        endpoint: The first label of its host name.
        is_static: The endpoint was chosen, not made of the id.
        public: Nobody needs a token.
        collaborators: Who may look at it beside the owner.
        token: Made when it is first asked for.
        port: Where the command listens on 127.0.0.1.
    """

    endpoint: str = ""
    is_static: bool = False
    public: bool = False
    collaborators: list[dict[str, str]] = field(default_factory=list)
    token: str = ""
    port: int = 0
    goal_state: str = "started"


@dataclass
class Run(Pod):
    """One run of a job."""

    job: str = ""


@dataclass
class Job(Pod):
    """A job.

    Args:
        schedule: Five cron fields; None for a job that runs when told so.
        is_paused: The schedule does not count.
    """

    schedule: str | None = None
    is_paused: bool = False
