"""What `doctor` found, checked for form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.places import Place, snapshot
from tests.support.programs import free_port
from tests.support.refusals import WELL_WITHIN_S, duration_s

CHECKS = (
    "versions",
    "settings",
    "driver",
    "schema",
    "clock",
    "connections",
    "sqlite",
    "artifacts",
    "temp-space",
    "port",
    "network",
    "allowed-hosts",
    "tracking-uri",
    "telemetry",
)


@dataclass(frozen=True)
class Examination:
    """One run of `doctor --json`, checked for form.

    Args:
        code: Exit code.
        items: By name.
    """

    code: int
    items: Mapping[str, Mapping[str, Any]]

    @property
    def troubles(self) -> set[str]:
        """Names of the items that warn or failed; too little temporary space is not our fault."""
        return {
            name
            for name, item in self.items.items()
            if item["status"] in ("warning", "failed") and name != "temp-space"
        }

    def check(self, code: int, *names: str) -> None:
        """Exactly these items are troubled, each has a fix, and the exit code is right."""
        assert self.troubles == set(names), [self.items[name] for name in self.troubles]
        if code == 0 and self.items["temp-space"]["status"] == "warning":
            code = 3
        assert self.code == code
        for name in self.troubles:
            assert self.items[name].get("fix"), self.items[name]


def examine(
    place: Place,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    volatile: Sequence[str] = (),
    attempts: int = 3,
) -> Examination:
    """Run `doctor --json`; it must be quick, and everything in `place` as before.

    Args:
        place: Where.
        arguments: After `doctor --json`.
        environment: On top of a store and destination in `place`, a free port and two workers.
        volatile: Beginnings of the names of files that other processes write meanwhile.
        attempts: Look again when something did not answer within doctor's own 2.6 s: on a busy
            machine that happens to what is well.
    """

    def look() -> dict[str, tuple[object, ...]]:
        found = snapshot(place.root)
        return {name: found[name] for name in found if not name.startswith(tuple(volatile))}

    before = look()
    whole = {"MLFLOW_PORT": str(free_port()), "MLFLOW_WORKERS": "2", **(environment or {})}
    ended = place.run("doctor", "--json", *arguments, environment=whole)
    assert look() == before, "something was changed"
    assert ended.stderr == "", ended.stderr
    report = json.loads(ended.stdout)
    _check_form(report)
    assert duration_s(report) < WELL_WITHIN_S
    assert report["exit_code"] == ended.returncode
    assert "hidden" not in ended.stdout
    if "no answer within" in ended.stdout and attempts > 1:
        return examine(
            place,
            *arguments,
            environment=environment,
            volatile=volatile,
            attempts=attempts - 1,
        )
    return Examination(ended.returncode, {item["name"]: item for item in report["items"]})


def _check_form(report: Mapping[str, Any]) -> None:
    assert set(report) >= {
        "command",
        "version",
        "started_at",
        "finished_at",
        "outcome",
        "exit_code",
        "counts",
        "items",
        "warnings",
    }
    assert report["command"] == "doctor"
    for moment in ("started_at", "finished_at"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", report[moment])
    expected = {0: "ok", 3: "attention", 69: "failed", 78: "failed"}
    assert report["outcome"] == expected[report["exit_code"]]
    assert tuple(item["name"] for item in report["items"]) == CHECKS
    for item in report["items"]:
        assert set(item) <= {"name", "status", "detail", "fix", "facts"}
        assert item["status"] in ("ok", "warning", "failed", "skipped")
        assert item["detail"]
        assert "\n" not in item["detail"]
        assert isinstance(item.get("facts", {}), dict)
    counts = dict.fromkeys(("ok", "warning", "failed", "skipped"), 0)
    for item in report["items"]:
        counts[item["status"]] += 1
    assert report["counts"] == counts
