"""Durations and byte sizes as operators write them. Pure."""

import math
import re

_UNIT_SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
_DURATION = re.compile(
    r"^(?:(?P<d>\d+(?:\.\d+)?)d)?(?:(?P<h>\d+(?:\.\d+)?)h)?"
    r"(?:(?P<m>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+(?:\.\d+)?)s)?$"
)
_SIZE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def parse_duration(text: str) -> float:
    """Read a duration such as `30d0h0m0s`, `90m` or `2.5s`.

    Args:
        text: Days, hours, minutes, seconds, in this order, each at most once. A bare number is
            refused, because nobody can tell its unit.

    Returns:
        Seconds, zero or more.

    Raises:
        ValueError: The text is empty or not a duration.

    Source: the grammar of `mlflow gc --older-than` (MLflow 3.17.2, cli/__init__.py).
    Differs: an empty text is refused, there it means no limit.
    """
    match = _DURATION.match(text.strip())
    if match is None or not text.strip():
        raise ValueError(f"{text!r} is not a duration; write days, hours, minutes, seconds: 1d12h")
    seconds = sum(
        float(value) * _UNIT_SECONDS[unit] for unit, value in match.groupdict("0").items()
    )
    if not math.isfinite(seconds):
        raise ValueError("the duration is too long for any clock")
    return seconds


def render_duration(seconds: float) -> str:
    """Write seconds the way `parse_duration` reads them, leaving out zero parts."""
    if seconds <= 0:
        return "0s"
    parts = []
    rest = seconds
    for unit, size in _UNIT_SECONDS.items():
        count = rest // size if unit != "s" else rest
        rest -= count * size
        if count:
            parts.append(f"{count:.3f}".rstrip("0").rstrip(".") + unit)
    return "".join(parts)


def render_size(size_bytes: float) -> str:
    """Write a number of bytes for people, in binary units: 1536 becomes `1.5 KiB`."""
    size = float(size_bytes)
    for unit in _SIZE_UNITS[:-1]:
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {_SIZE_UNITS[-1]}"
