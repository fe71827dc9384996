"""Reports and errors: what machines and people get to read."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_server import __version__, errors
from mlflow_server.errors import ExitCode, OpsError, SettingsError
from mlflow_server.report import Item, Outcome, Report, Status, render_time, worst

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def report(**changes: object) -> Report:
    whole: dict[str, object] = {"command": "doctor", "started_at": NOON, "finished_at": NOON}
    return Report(**{**whole, **changes})  # type: ignore[arg-type]


def test_the_document_has_the_documented_fields_in_reading_order() -> None:
    items = (
        Item("port", Status.OK, "free", facts={"port": 5000}),
        Item("schema", Status.FAILED, "behind", "mlflow-server upgrade"),
    )
    made = report(
        items=items,
        exit_code=ExitCode.ATTENTION,
        warnings=("careful",),
        finished_at=NOON + timedelta(seconds=1.5),
    )
    assert json.loads(made.as_json()) == {
        "command": "doctor",
        "version": __version__,
        "started_at": "2026-01-31T12:00:00.000Z",
        "finished_at": "2026-01-31T12:00:01.500Z",
        "outcome": "attention",
        "exit_code": 3,
        "counts": {"ok": 1, "warning": 0, "failed": 1, "skipped": 0},
        "items": [
            {"name": "port", "status": "ok", "detail": "free", "facts": {"port": 5000}},
            {
                "name": "schema",
                "status": "failed",
                "detail": "behind",
                "fix": "mlflow-server upgrade",
            },
        ],
        "warnings": ["careful"],
    }
    assert list(json.loads(made.as_json()))[:6] == [
        "command",
        "version",
        "started_at",
        "finished_at",
        "outcome",
        "exit_code",
    ]


def test_further_fields_follow() -> None:
    document = json.loads(report(data={"settings": [1, 2]}).as_json())
    assert document["settings"] == [1, 2]
    assert "error" not in document


def test_an_error_has_message_and_hint() -> None:
    made = report(error=OpsError("why", hint="what next"), exit_code=ExitCode.FAILED)
    assert json.loads(made.as_json())["error"] == {"message": "why", "hint": "what next"}


@pytest.mark.parametrize("code", ExitCode)
def test_the_outcome_follows_from_the_exit_code(code: ExitCode) -> None:
    expected = {ExitCode.OK: Outcome.OK, ExitCode.ATTENTION: Outcome.ATTENTION}
    assert report(exit_code=code).outcome is expected.get(code, Outcome.FAILED)


@given(st.lists(st.sampled_from(Status)))
def test_counts_add_up_and_name_every_status(statuses: list[Status]) -> None:
    items = tuple(Item("x", status, "y") for status in statuses)
    counts = report(items=items).counts
    assert list(counts) == ["ok", "warning", "failed", "skipped"]
    assert sum(counts.values()) == len(items)
    troubled = Status.WARNING in statuses or Status.FAILED in statuses
    assert worst(items) is (ExitCode.ATTENTION if troubled else ExitCode.OK)


@given(st.text(), st.text())
def test_any_text_makes_a_document(detail: str, warning: str) -> None:
    made = report(items=(Item("x", Status.OK, detail),), warnings=(warning,))
    document = json.loads(made.as_json())
    assert document["items"][0]["detail"] == detail
    assert document["warnings"] == [warning]


def test_times_are_utc_with_milliseconds() -> None:
    east = datetime(2026, 1, 31, 14, 0, 0, 123_999, tzinfo=timezone(timedelta(hours=2)))
    assert render_time(east) == "2026-01-31T12:00:00.123Z"


# Limits without a zone, as hypothesis wants them; far from the ends, so that each zone has them.
FIRST, LAST = datetime(1, 1, 3), datetime(9999, 12, 29)  # noqa: DTZ001


@given(st.datetimes(timezones=st.timezones(), min_value=FIRST, max_value=LAST))
def test_times_read_back_to_the_millisecond(moment: datetime) -> None:
    text = render_time(moment)
    assert text.endswith("Z")
    back = datetime.fromisoformat(text)
    assert timedelta(0) <= moment.astimezone(UTC) - back < timedelta(milliseconds=1)


def children_of(kind: type[OpsError]) -> list[type[OpsError]]:
    return [kind, *(deep for child in kind.__subclasses__() for deep in children_of(child))]


@pytest.mark.parametrize("kind", children_of(OpsError), ids=lambda kind: kind.__name__)
def test_every_error_has_an_exit_code_other_than_success(kind: type[OpsError]) -> None:
    assert isinstance(kind.exit_code, ExitCode)
    assert kind.exit_code not in (ExitCode.OK, ExitCode.ATTENTION)


@pytest.mark.parametrize("code", ExitCode)
def test_every_exit_code_has_a_meaning_in_one_line(code: ExitCode) -> None:
    assert 10 < len(code.meaning) < 80
    assert "\n" not in code.meaning


def test_exit_codes_are_those_of_the_design() -> None:
    assert [int(code) for code in ExitCode] == [0, 1, 2, 3, 4, 65, 69, 70, 75, 77, 78, 130, 143]


def test_exit_codes_of_errors_differ_but_for_those_who_may_share_one() -> None:
    kinds = [kind for kind in children_of(OpsError) if "exit_code" in vars(kind)]
    codes = [kind.exit_code for kind in kinds]
    assert len(set(codes)) == len(codes)


def test_settings_errors_keep_their_problems_apart() -> None:
    err = SettingsError(["one", "two"], hint="look", exit_code=ExitCode.USAGE)
    assert (err.problems, err.message, err.hint) == (["one", "two"], "one\ntwo", "look")
    assert err.exit_code is ExitCode.USAGE
    assert SettingsError(["one"]).exit_code is ExitCode.SETTINGS


def test_all_errors_live_in_one_module() -> None:
    assert {kind.__name__ for kind in children_of(OpsError)} <= set(vars(errors))
