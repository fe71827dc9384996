"""Which backups may go. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class Retention:
    """What is to be kept; a backup stays when any of these wants it.

    Args:
        last: So many of the newest.
        daily: The newest one of each of so many days that have one.
        weekly: The same of weeks (ISO 8601, from Monday).
        monthly: The same of months.
        minimum: So many of the newest are never removed, whatever the rest says.
    """

    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    minimum: int = 1

    def __bool__(self) -> bool:
        return any((self.last, self.daily, self.weekly, self.monthly))


def choose_kept(moments: Mapping[str, datetime], retention: Retention) -> dict[str, list[str]]:
    """The backups that stay.

    Args:
        moments: When each was made, by its name.
        retention: The rules.

    Returns:
        Why each of them stays; the others may go. Newest first.
    """
    in_utc = {name: moment.astimezone(UTC) for name, moment in moments.items()}
    newest_first = sorted(in_utc, key=lambda name: (in_utc[name], name), reverse=True)
    reasons: dict[str, list[str]] = {name: [] for name in newest_first}
    rules: tuple[tuple[str, int, Callable[[str], object]], ...] = (
        ("last", retention.last, lambda name: name),
        ("daily", retention.daily, lambda name: in_utc[name].date()),
        ("weekly", retention.weekly, lambda name: in_utc[name].isocalendar()[:2]),
        ("monthly", retention.monthly, lambda name: (in_utc[name].year, in_utc[name].month)),
    )
    for rule, count, period_of in rules:
        periods: set[object] = set()
        for name in newest_first:
            if len(periods) == count:
                break
            if (period := period_of(name)) not in periods:
                periods.add(period)
                reasons[name].append(rule)
    for name in newest_first[: retention.minimum]:
        reasons[name] = reasons[name] or ["minimum"]
    return {name: why for name, why in reasons.items() if why}
