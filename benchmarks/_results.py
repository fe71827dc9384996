"""What is measured, which bar it has to clear, and how results are shown; pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

OURS = "ours"


class Verdict(StrEnum):
    """How a row ends."""

    AIM = "aim reached"
    OK = "ok"
    MISSED = "MISSED"
    FAILED = "FAILED"
    REPORTED = "-"


@dataclass(frozen=True)
class Bar:
    """Limits of one measurement; what is None is no limit.

    Attributes:
        at_least: Smallest good ratio.
        at_most: Largest good ratio.
        aim: A ratio further on in the same direction.
        ours_at_most: Largest good value of ours, in the unit of the measurement.
        ours_at_least: Smallest good value of ours.
    """

    at_least: float | None = None
    at_most: float | None = None
    aim: float | None = None
    ours_at_most: float | None = None
    ours_at_least: float | None = None

    def is_met(self, ratio: float | None, ours: float) -> bool:
        """Whether all limits are kept; one of the ratio is not, when there is no ratio."""
        return (
            (self.at_least is None or (ratio is not None and ratio >= self.at_least))
            and (self.at_most is None or (ratio is not None and ratio <= self.at_most))
            and (self.ours_at_most is None or ours <= self.ours_at_most)
            and (self.ours_at_least is None or ours >= self.ours_at_least)
        )

    def is_aim_reached(self, ratio: float | None) -> bool:
        """Whether the ratio is as good as was hoped for; never without an aim."""
        if self.aim is None or ratio is None:
            return False
        return ratio <= self.aim if self.at_most is not None else ratio >= self.aim

    def render(self, unit: str) -> str:
        parts = []
        if self.at_least is not None:
            parts.append(f">= {self.at_least:g}x")
        if self.at_most is not None:
            parts.append(f"<= {self.at_most:g}x")
        if self.ours_at_most is not None:
            parts.append(f"<= {self.ours_at_most:g} {unit}".removesuffix(" count"))
        if self.ours_at_least is not None:
            parts.append(f">= {self.ours_at_least:,.0f} {unit}".removesuffix(" count"))
        return ", ".join(parts) or "-"


NO_BAR = Bar()


@dataclass(frozen=True)
class Measurement:
    """One row of the table.

    Attributes:
        key: Name in the JSON document.
        title: Name for people.
        unit: Of the values of both.
        bars: By database engine; an engine that is missing is only reported.
        is_speedup: The ratio is stock/ours (times faster) instead of ours/stock.
        compared_with: What stands beside ours, stock as a rule; None is nothing.
    """

    key: str
    title: str
    unit: str
    bars: Mapping[str, Bar] = field(default_factory=dict)
    is_speedup: bool = False
    compared_with: str | None = "stock"

    @property
    def ratio_of(self) -> str:
        """Which way the ratio divides."""
        names = (self.compared_with, OURS) if self.is_speedup else (OURS, self.compared_with)
        return "{}/{}".format(*names)

    def ratio(self, stock: float, ours: float) -> float:
        return stock / ours if self.is_speedup else ours / stock


def on_both(bar: Bar) -> dict[str, Bar]:
    return {"sqlite": bar, "postgresql": bar}


MEASUREMENTS = (
    Measurement(
        "log_metric_p50",
        "log_metric, one client, p50",
        "ms",
        {"postgresql": Bar(at_least=8, aim=10, ours_at_most=6)},
        is_speedup=True,
    ),
    Measurement(
        "search_runs",
        "search_runs, 20 newest",
        "req/s",
        {"sqlite": Bar(at_least=1.2), "postgresql": Bar(at_least=1.0)},
    ),
    Measurement("log_batch", "log_batch of 10 metrics", "req/s", on_both(Bar(at_least=1.6, aim=2))),
    Measurement("create_run", "create_run", "req/s", on_both(Bar(at_least=2))),
    Measurement("pss", "memory of the tree, PSS", "MiB", on_both(Bar(at_most=0.28, aim=0.2))),
    Measurement("processes", "processes of the tree", "count"),
    Measurement(
        "first_call", "start to first API answer", "s", on_both(Bar(at_most=0.65, aim=0.5))
    ),
    Measurement("exit", "SIGTERM to last process gone", "s", on_both(Bar(ours_at_most=3))),
    Measurement("put_1mb", "artifact upload, 1 MB", "MB/s", on_both(Bar(at_least=0.95))),
    Measurement("get_1mb", "artifact download, 1 MB", "MB/s", on_both(Bar(at_least=0.95))),
    Measurement("put_50mb", "artifact upload, 50 MB", "MB/s", on_both(Bar(at_least=0.95))),
    Measurement("get_50mb", "artifact download, 50 MB", "MB/s", on_both(Bar(at_least=0.95))),
)


@dataclass(frozen=True)
class Sample:
    """One value of one contender.

    Attributes:
        store: Database engine.
        key: Of the measurement.
        contender: "ours", or what the measurement compares it with.
        round_number: From 1.
        value: In the unit of the measurement.
        load_before: Load average of the last minute when the measurement began.
        load_after: The same when it ended.
    """

    store: str
    key: str
    contender: str
    round_number: int
    value: float
    load_before: float
    load_after: float


@dataclass(frozen=True)
class Row:
    """Both contenders on one engine, medians over all rounds.

    Attributes:
        store: Database engine.
        measurement: What was measured.
        stock: Value of stock, or of what stands in its place, in the unit of the measurement; None
            if there is none.
        ours: The same of ours.
        stock_load: Load average when stock was measured, mean of before and after; NaN if never.
        ours_load: The same of ours.
    """

    store: str
    measurement: Measurement
    stock: float | None
    ours: float | None
    stock_load: float
    ours_load: float

    @property
    def bar(self) -> Bar:
        return self.measurement.bars.get(self.store, NO_BAR)

    @property
    def ratio(self) -> float | None:
        if not self.stock or not self.ours:
            return None
        return self.measurement.ratio(self.stock, self.ours)

    @property
    def verdict(self) -> Verdict:
        if self.ours is None or (self.ratio is None and self.measurement.compared_with):
            return Verdict.FAILED
        if self.bar == NO_BAR:
            return Verdict.REPORTED
        if not self.bar.is_met(self.ratio, self.ours):
            return Verdict.MISSED
        return Verdict.AIM if self.bar.is_aim_reached(self.ratio) else Verdict.OK


def make_rows(samples: Iterable[Sample], stores: Iterable[str]) -> list[Row]:
    """Condense samples of any order into one row per engine and measurement."""
    known = list(samples)
    return [
        make_row(
            store,
            measurement,
            [sample for sample in known if (sample.store, sample.key) == (store, measurement.key)],
        )
        for store in stores
        for measurement in MEASUREMENTS
    ]


def make_row(store: str, measurement: Measurement, samples: Iterable[Sample]) -> Row:
    """Condense the samples of one engine and measurement."""
    known = list(samples)
    theirs = [sample for sample in known if sample.contender != OURS]
    own = [sample for sample in known if sample.contender == OURS]
    return Row(
        store,
        measurement,
        stock=median_value(theirs),
        ours=median_value(own),
        stock_load=median_load(theirs),
        ours_load=median_load(own),
    )


def median_value(samples: list[Sample]) -> float | None:
    return statistics.median(sample.value for sample in samples) if samples else None


def median_load(samples: list[Sample]) -> float:
    if not samples:
        return math.nan
    return statistics.median((sample.load_before + sample.load_after) / 2 for sample in samples)


def render_table(rows: Iterable[Row]) -> str:
    """One line per row, columns aligned."""
    header = ("store", "measurement", "stock", "ours", "ratio", "bar", "aim", "load", "verdict")
    lines = [header, *(render_row(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(
            cell.rjust(width) if header[column] in {"stock", "ours", "ratio"} else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def render_row(row: Row) -> tuple[str, ...]:
    measurement, bar = row.measurement, row.bar
    return (
        row.store,
        measurement.title,
        render_value(row.stock, measurement.unit),
        render_value(row.ours, measurement.unit),
        "-" if row.ratio is None else f"{row.ratio:.2f}x {measurement.ratio_of}",
        bar.render(measurement.unit),
        "-" if bar.aim is None else f"{bar.aim:g}x",
        f"{render_load(row.stock_load)} / {render_load(row.ours_load)}",
        row.verdict,
    )


def render_load(load: float) -> str:
    return "-" if math.isnan(load) else f"{load:.1f}"


def render_value(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "count":
        return f"{value:.0f}"
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.2f} {unit}"


def row_document(row: Row, samples: Iterable[Sample]) -> dict[str, Any]:
    """A row for the JSON document, with every single value."""
    measurement = row.measurement
    return {
        "store": row.store,
        "measurement": measurement.key,
        "unit": measurement.unit,
        "compared_with": measurement.compared_with,
        "stock": row.stock,
        "ours": row.ours,
        "ratio": row.ratio,
        "ratio_of": measurement.ratio_of,
        "ratio_at_least": row.bar.at_least,
        "ratio_at_most": row.bar.at_most,
        "ratio_aim": row.bar.aim,
        "ours_at_most": row.bar.ours_at_most,
        "ours_at_least": row.bar.ours_at_least,
        "verdict": row.verdict.value,
        "samples": [
            {
                "server": sample.contender,
                "round": sample.round_number,
                "value": sample.value,
                "load_before": sample.load_before,
                "load_after": sample.load_after,
            }
            for sample in samples
            if (sample.store, sample.key) == (row.store, measurement.key)
        ],
    }
