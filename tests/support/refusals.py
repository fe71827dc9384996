"""What it looks like when a command refuses: one or two lines, a code, nothing touched."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.support.places import Place, snapshot
from tests.support.programs import free_port

# By the command's own clock: each check takes 5 s at most, all together 10 s; the rest is for
# imports on a busy machine.
WELL_WITHIN_S = 15.0


@dataclass(frozen=True)
class Refusal:
    """How `serve` ended, checked for form already.

    Args:
        code: Exit code.
        errors: Text behind each `Error: `.
        hints: Text behind each `Try: `.
        seconds: How long it took, by its own clock.
    """

    code: int
    errors: Sequence[str]
    hints: Sequence[str]
    seconds: float

    @property
    def text(self) -> str:
        """Everything said."""
        return "\n".join([*self.errors, *self.hints])


def refusal(
    place: Place,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    plain: bool = True,
) -> Refusal:
    """Run `serve`, plain and with `--json` at the same time, and look how it refuses.

    Args:
        place: Where; nothing in it may change.
        arguments: After `serve`.
        environment: On top of a store and destination in `place`, and a free port.
        plain: False leaves the plain run out, where a neighbouring test has it.
    """
    before = snapshot(place.root)

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        whole = {"MLFLOW_PORT": str(free_port()), **(environment or {})}
        return place.run("serve", *arguments, *more, environment=whole)

    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(run, "--json"), *([pool.submit(run)] if plain else [])]
        as_json, *as_text = [waiting.result() for waiting in runs]
    assert snapshot(place.root) == before, "something was changed"
    for ended in as_text:
        assert ended.stdout == ""
        assert ended.returncode == as_json.returncode, (ended.stderr, as_json.stderr)
        parse_refusal(ended)

    errors, hints = parse_refusal(as_json)
    document = json.loads(as_json.stdout)
    assert document["command"] == "serve"
    assert document["outcome"] == "failed"
    assert document["exit_code"] == as_json.returncode
    assert document["error"]["message"] == "\n".join(errors)
    assert document["error"]["hint"] == ("\n".join(hints) or None)
    seconds = duration_s(document)
    assert seconds < WELL_WITHIN_S
    return Refusal(as_json.returncode, errors, hints, seconds)


def duration_s(report: Mapping[str, Any]) -> float:
    """How long a command says it took."""
    started, finished = (
        datetime.fromisoformat(report[name]) for name in ("started_at", "finished_at")
    )
    return (finished - started).total_seconds()


def parse_refusal(ended: subprocess.CompletedProcess[str]) -> tuple[list[str], list[str]]:
    """The errors and hints on stderr; anything else but warnings fails."""
    assert "Traceback" not in ended.stderr
    lines = [line for line in ended.stderr.splitlines() if " WARNING " not in line]
    other = [line for line in lines if not line.startswith(("Error: ", "Try: "))]
    assert other == [], ended.stderr
    errors = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    hints = [line.removeprefix("Try: ") for line in lines if line.startswith("Try: ")]
    assert errors, ended.stderr
    assert len(hints) <= len(errors)
    return errors, hints
