"""Parts of a release, and what they find and make."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mlflow_server.ae5.deployments import Deployment
from mlflow_server.ae5.projects import Project
from mlflow_server.errors import InternalError


@dataclass(frozen=True)
class Options:
    """How a release is made.

    Args:
        values: Secrets to have, by name.
        replaces: A project that is no release of ours may be taken the place of.
        upgrades: The database may be upgraded.
        restores: A backup to restore before the first start.
        is_rollback: It goes back; a database is never upgraded for that.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    replaces: bool = False
    upgrades: bool = False
    restores: str | None = None
    is_rollback: bool = False


@dataclass
class Step:
    """One part of a release.

    Args:
        name: Stable, for machines.
        detail: What it does, or why there is nothing to do.
        act: Does it and says what it did; None where there is nothing to do.
    """

    name: str
    detail: str
    act: Callable[[], str | None] | None = None

    @property
    def is_done(self) -> bool:
        """There is nothing to do."""
        return self.act is None


@dataclass
class Standing:
    """What there is of a release, while its steps are taken.

    Args:
        project: That holds it; None before it is uploaded.
        deployment: That stays or was started; None before.
    """

    project: Project | None = None
    deployment: Deployment | None = None

    @property
    def uploaded(self) -> Project:
        """The project, for steps after the upload."""
        if self.project is None:
            raise InternalError("a step of the release came before its upload")
        return self.project

    @property
    def running(self) -> Deployment:
        """The deployment, for steps after its start."""
        if self.deployment is None:
            raise InternalError("a step of the release came before its start")
        return self.deployment
