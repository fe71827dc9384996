"""What a command found or did, as text for people and as JSON for machines. Pure."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from mlflow_server import __version__
from mlflow_server.errors import ExitCode, OpsError


class Outcome(StrEnum):
    """How a command ended."""

    OK = "ok"
    ATTENTION = "attention"
    FAILED = "failed"


class Status(StrEnum):
    """How one item of a report stands."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Item:
    """One line of a report.

    Args:
        name: What was looked at or worked on; stable, for machines.
        status: How it stands.
        detail: One sentence for people; never holds a secret.
        fix: What to do about it; a command where there is one.
        facts: Measured values, JSON types only, units in the names.
    """

    name: str
    status: Status
    detail: str
    fix: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The item as JSON types; `fix` and `facts` only when they say something."""
        document: dict[str, Any] = {
            "name": self.name,
            "status": self.status.value,
            "detail": self.detail,
        }
        if self.fix:
            document["fix"] = self.fix
        if self.facts:
            document["facts"] = dict(self.facts)
        return document


@dataclass(frozen=True)
class Report:
    """The result of one command: the one document that `--json` prints.

    Args:
        command: The command as typed, without options.
        started_at: Aware, UTC.
        finished_at: Aware, UTC.
        exit_code: What the process will end with.
        items: In the order they should be read.
        warnings: Sentences that concern the whole command.
        data: Further top-level fields of the document.
        error: What ended the command, when something did.
    """

    command: str
    started_at: datetime
    finished_at: datetime
    exit_code: ExitCode = ExitCode.OK
    items: tuple[Item, ...] = ()
    warnings: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    error: OpsError | None = None

    @property
    def outcome(self) -> Outcome:
        """`ok`, `attention` (exit 3) or `failed`."""
        match self.exit_code:
            case ExitCode.OK:
                return Outcome.OK
            case ExitCode.ATTENTION:
                return Outcome.ATTENTION
            case _:
                return Outcome.FAILED

    @property
    def counts(self) -> dict[str, int]:
        """Items by status; every status is there."""
        counts = {status.value: 0 for status in Status}
        for item in self.items:
            counts[item.status.value] += 1
        return counts

    def as_json(self) -> str:
        """The document, indented, keys in reading order; fields may be added, never renamed."""
        document: dict[str, Any] = {
            "command": self.command,
            "version": __version__,
            "started_at": render_time(self.started_at),
            "finished_at": render_time(self.finished_at),
            "outcome": self.outcome.value,
            "exit_code": int(self.exit_code),
            "counts": self.counts,
            "items": [item.as_json() for item in self.items],
            "warnings": list(self.warnings),
            **self.data,
        }
        if self.error is not None:
            document["error"] = {"message": self.error.message, "hint": self.error.hint}
        return json.dumps(document, indent=2, ensure_ascii=False)


def render_time(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, ending in Z."""
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def worst(items: Iterable[Item]) -> ExitCode:
    """Exit 3 when an item failed or warns, else 0."""
    troubled = any(item.status in (Status.FAILED, Status.WARNING) for item in items)
    return ExitCode.ATTENTION if troubled else ExitCode.OK
