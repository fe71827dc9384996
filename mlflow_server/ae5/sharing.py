"""`ae5 share`: who may open a server in a browser, besides the account that owns it."""

from collections.abc import Sequence
from dataclasses import dataclass

from mlflow_server.ae5.deployments import Deployment
from mlflow_server.ae5.names import require_name
from mlflow_server.ae5.program import Ae5
from mlflow_server.ae5.release_file import ShareFile

EVERYONE = "everyone"
"""The platform's group of all who can sign in."""


@dataclass(frozen=True)
class Reader:
    """Somebody who may open a server.

    Args:
        name: Of a user or a group.
        is_group: Which of both.
    """

    name: str
    is_group: bool

    def __str__(self) -> str:
        return f"group {self.name}" if self.is_group else f"user {self.name}"


def readers_of(wanted: ShareFile) -> list[Reader]:
    """Who is wanted.

    Raises:
        UsageError: A name cannot be.
    """
    groups = [*([EVERYONE] if wanted.everyone else []), *wanted.groups]
    found = [Reader(require_name(name, "group"), True) for name in dict.fromkeys(groups)]
    return found + [
        Reader(require_name(name, "user"), False) for name in dict.fromkeys(wanted.users)
    ]


def readers_at(ae5: Ae5, deployment: Deployment) -> list[Reader]:
    """Those who may open it."""
    records = ae5.records("deployment", "collaborator", "list", deployment.id)
    return [Reader(str(each.get("id")), each.get("type") == "group") for each in records]


def missing_readers(ae5: Ae5, deployment: Deployment, wanted: Sequence[Reader]) -> list[Reader]:
    """Those who may not open it yet."""
    there = readers_at(ae5, deployment)
    return [reader for reader in dict.fromkeys(wanted) if reader not in there]


def share(ae5: Ae5, deployment: Deployment, readers: Sequence[Reader]) -> None:
    """Let them open it.

    Raises:
        OpsError: The platform knows no such user or group.
    """
    for is_group in (True, False):
        names = [reader.name for reader in readers if reader.is_group is is_group]
        if names:
            options = ("--group",) if is_group else ()
            ae5.text("deployment", "collaborator", "add", deployment.id, *names, *options)
