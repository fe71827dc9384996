"""Which backups may go. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Retention:
    """What is to be kept; a backup stays when any of these wants it.

    Args:
        last: So many of the newest.
        daily: The newest one of each of so many days that have one.
        weekly: The same of weeks (ISO 8601, from Monday).
        monthly: The same of months.
        minimum: So many are never removed, whatever the rest says.
    """

    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    minimum: int = 1

    def __bool__(self) -> bool:
        return any((self.last, self.daily, self.weekly, self.monthly))


def choose_kept(moments: Sequence[datetime], retention: Retention) -> dict[datetime, list[str]]:
    """The backups that stay.

    Args:
        moments: When each was made, UTC, all different.
        retention: The rules.

    Returns:
        Why each of them stays; the others may go. Newest first.
    """
    newest_first = sorted(moments, reverse=True)
    reasons: dict[datetime, list[str]] = {moment: [] for moment in newest_first}
    rules = (
        ("last", retention.last, lambda moment: moment),
        ("daily", retention.daily, lambda moment: moment.date()),
        ("weekly", retention.weekly, lambda moment: moment.isocalendar()[:2]),
        ("monthly", retention.monthly, lambda moment: (moment.year, moment.month)),
    )
    for name, count, period_of in rules:
        periods: set[object] = set()
        for moment in newest_first:
            if len(periods) == count:
                break
            if (period := period_of(moment)) not in periods:
                periods.add(period)
                reasons[moment].append(name)
    kept = {moment: why for moment, why in reasons.items() if why}
    for moment in newest_first:
        if len(kept) >= retention.minimum:
            break
        if moment not in kept:
            kept[moment] = ["minimum"]
    return {moment: kept[moment] for moment in newest_first if moment in kept}
