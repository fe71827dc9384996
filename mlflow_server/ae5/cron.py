"""Schedules as the platform takes them: five plain fields, in UTC."""

import re
from datetime import UTC, datetime
from itertools import islice

from mlflow_server.errors import UsageError

# Name, first, last.
_FIELDS = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of the month", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 7),
)
_PART = re.compile(r"(?:\*|(\d+)(?:-(\d+))?)(?:/(\d+))?")


def require_cron(text: str) -> str:
    """A schedule that the platform takes.

    Args:
        text: Five fields of numbers, `*`, ranges, lists and steps; a step has to divide the span of
            its field (documentation of ae5-tools). No names, no seconds, no `@daily`.

    Raises:
        UsageError: It is none; says which field.
    """
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise UsageError(
            f"schedule {text!r}: has {len(fields)} fields instead of 5",
            hint='minute, hour, day, month, day of the week, as in "*/10 * * * *"',
        )
    for field, (name, first, last) in zip(fields, _FIELDS, strict=True):
        for part in field.split(","):
            if problem := _problem(part, first, last):
                raise UsageError(f"schedule {text!r}: {name} {part!r}: {problem}")
    return " ".join(fields)


def _problem(part: str, first: int, last: int) -> str | None:
    found = _PART.fullmatch(part)
    if found is None:
        return "is no number, range, * or step"
    low, high, step = (int(group) if group else None for group in found.groups())
    for number in (low, high):
        if number is not None and not first <= number <= last:
            return f"is not from {first} to {last}"
    if low is not None and high is not None and low > high:
        return "ends before it begins"
    if step is not None:
        if low is not None and high is None:
            return "has a step and no range"
        # Sunday is 0 and 7: a week has seven days.
        span = min(last, 6) - first + 1 if last == 7 else last - first + 1
        if step == 0 or span % step:
            return f"the platform takes steps that divide {span} only"
    return None


def next_runs(cron: str, after: datetime, count: int = 3) -> list[datetime]:
    """When a schedule runs next.

    Args:
        cron: As `require_cron` returns it.
        after: With a time zone.
        count: How many.

    Returns:
        Times in UTC; fewer when it never runs, as on 30 February.
    """
    from cronsim import CronSim, CronSimError

    try:
        return list(islice(CronSim(cron, after.astimezone(UTC)), count))
    except CronSimError:
        return []
