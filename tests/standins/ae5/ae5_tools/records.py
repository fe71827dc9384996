"""How records are named and chosen: identifiers and filters.

An identifier is `owner/name/id:revision` with parts left out. A filter is `field OP text`, joined
by `&` or `,` (and) and `|` (or); `,` binds weakest, `&` strongest. `=` and `!=` match like a shell.
Source: section 1.3 of the facts, `--help-filter`, and trying the real program.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, TypeAlias

from .errors import AEException

Record: TypeAlias = dict[str, Any]

_ID = re.compile(r"[a-f0-9]{2}-[a-f0-9]{32}")
_KINDS = {"a0": "project", "a1": "session", "a2": "deployment", "a3": "channel"}
# Kinds of records that have ids of this form.
WITH_ID = frozenset({"project", "session", "deployment", "channel", "job", "run", "pod"})
_BY_NAME = {
    "endpoint": "id={0}",
    "resource_profile": "name={0}",
    "collaborator": "id={0}",
}
_OPERATION = re.compile(r"(==?|!=|>=?|<=?)")
_COMPARE: dict[str, Callable[[str, str], bool]] = {
    "=": fnmatch,
    "!=": lambda text, pattern: not fnmatch(text, pattern),
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


class Records(list[Any]):
    """No records, but of a known kind, so that a table can have its header."""

    def __init__(self, kind: str, columns: Iterable[str] | None = None) -> None:
        super().__init__()
        self.kind = kind
        self.columns = None if columns is None else list(columns)


@dataclass(frozen=True)
class Identifier:
    """What the parts of an identifier say; empty ones say nothing."""

    owner: str = ""
    name: str = ""
    id: str = ""
    project: str = ""
    revision: str = ""

    @classmethod
    def parse(cls, text: str) -> Identifier:
        """Read one.

        Raises:
            ValueError: An id of no known kind, or more parts than there are.
        """
        rest, colon, revision = text.rpartition(":")
        if not colon:
            rest, revision = text, ""
        parts = rest.split("/")
        numbers: list[str] = []
        for most in (4, 3):
            if parts and (len(parts) == most or _ID.match(parts[-1])):
                numbers.insert(0, _open(parts.pop()))
        given = [number for number in numbers if number]
        kinds = [_kind(number, text) for number in given]
        number, project = given[0] if given else "", ""
        if len(given) == 2:
            if kinds.count("project") != 1:
                raise ValueError(f"Invalid identifier: {text}")
            project = given[kinds.index("project")]
            number = given[1 - kinds.index("project")]
        elif kinds == ["project"]:
            project = number
        name = _open(parts.pop()) if parts else ""
        owner = _open(parts.pop()) if parts else ""
        if parts:
            raise ValueError(f"Invalid identifier: {text}")
        return cls(owner, name, number, project, _open(revision))

    @classmethod
    def of(cls, record: Record) -> Identifier:
        """The full one of a record."""
        number = record["id"]
        project = number if number.startswith("a0-") else record.get("project_id", "")
        revision = record.get("revision") or ""
        return cls(record["owner"], record["name"], number, project, revision)

    def conditions(self, kind: str) -> str:
        """As a filter of records of a kind; the revision is none of them.

        Raises:
            ValueError: The id is one of another kind.
        """
        found = []
        if self.name:
            found.append(f"name={self.name}")
        if self.owner:
            found.append(f"owner={self.owner}")
        is_other = self.id != self.project
        if self.project and (is_other or kind != "project"):
            found.append(f"project_id={self.project}")
        if self.id and (is_other or kind == "project"):
            wanted = "deployment" if kind in ("job", "run") else kind
            actual = _kind(self.id, self.id)
            if wanted not in (actual, "pod"):
                raise ValueError(f"Expected a {kind} ID, not a {actual} ID: {self.id}")
            found.append(f"id={self.id}")
        return ",".join(found) or "*"

    def __str__(self) -> str:
        parts = [self.owner] if self.owner else []
        if self.owner or self.name or not self.id:
            parts.append(self.name or "*")
        if self.id and self.project and self.project != self.id:
            parts.append(self.project)
        parts += [self.id] if self.id else []
        return "/".join(parts) + (f":{self.revision}" if self.revision else "")


def _open(part: str) -> str:
    return "" if part == "*" else part


def _kind(number: str, whole: str) -> str:
    if number[:2] not in _KINDS or not _ID.match(number):
        raise ValueError(f"Invalid identifier: {whole if number == whole else number}")
    return _KINDS[number[:2]]


def filter_for(kind: str, text: str) -> tuple[str, ...]:
    """The conditions that an argument stands for.

    Raises:
        ValueError: It is no identifier of such a record.
    """
    if kind in WITH_ID:
        return tuple(Identifier.parse(text).conditions(kind).split(","))
    return tuple(_BY_NAME[kind].format(text).split(","))


def _terms(text: str) -> list[list[list[str]]]:
    """Filter → alternatives → conditions."""
    return [[part.split("&") for part in group.split("|")] for group in text.split(",")]


def fields_of(filters: Sequence[str]) -> list[str]:
    """The fields that a filter looks at, each once."""
    found: list[str] = []
    for text in filters:
        for alternatives in _terms(text):
            for conditions in alternatives:
                for condition in conditions:
                    field = _OPERATION.split(condition.strip())[0]
                    if field not in found:
                        found.append(field)
    return found


def text_of(value: object) -> str:
    """A value as filters see it."""
    return "" if value is None else str(value)


def holds(condition: str, known: Iterable[str], read: Callable[[str], object | None]) -> bool:
    """Whether a record meets one condition.

    Raises:
        LookupError: There is no such field; the argument is its name.
        ValueError: It is no condition.
    """
    parts = [part.strip() for part in _OPERATION.split(condition.strip())]
    if len(parts) != 3:
        raise ValueError(condition)
    field, operation, wanted = parts
    if field not in known:
        raise LookupError(field)
    return _COMPARE[operation](text_of(read(field)), wanted)


def select(records: list[Record], filters: Sequence[str]) -> list[Record]:
    """Those that meet all filters; fields are those of the first record.

    Raises:
        ValueError: No filter, or a field that does not exist.
    """

    def meets(record: Record, condition: str) -> bool:
        try:
            return holds(condition, records[0], record.get)
        except LookupError as err:
            unknown = err.args[0]
            raise ValueError(f'Invalid filter string: unknown field "{unknown}"') from err
        except ValueError as err:
            raise ValueError(
                f"Invalid filter string: {condition}\n   Required format: <fieldname><op><value>"
            ) from err

    if not filters or not records:
        return records
    return [
        record
        for record in records
        if all(
            any(all(meets(record, each) for each in conditions) for conditions in alternatives)
            for text in filters
            for alternatives in _terms(text)
        )
    ] or Records(records[0].get("_record_type", "record"), records[0])


def the_one(records: list[Record], filters: Sequence[str], kind: str) -> Record:
    """The only record there is.

    Raises:
        AEException: There is none, or there are several, which are then listed.
    """
    if len(records) == 1:
        found: Record = records[0]
        return found
    told = ",".join(filters)
    text = f"{'Multiple' if records else 'No'} {kind.replace('_', ' ')}s found matching {told}"
    if records and kind in WITH_ID:
        text += ":\n  - " + "\n  - ".join(str(Identifier.of(each)) for each in records)
    elif records:
        fields = fields_of(filters)
        lines = [",".join(f"{name}={each[name]}" for name in fields) for each in records]
        text += ":\n  - " + "\n  - ".join(lines)
    raise AEException(text)
