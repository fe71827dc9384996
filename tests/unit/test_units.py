"""Durations and sizes, as operators write them."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_server.units import parse_duration, render_duration, render_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30d0h0m0s", 2_592_000),
        ("1d12h", 129_600),
        ("90m", 5_400),
        ("2.5s", 2.5),
        ("0.5d", 43_200),
        ("0s", 0),
        (" 25s ", 25),
        ("25s\n", 25),
    ],
)
def test_reads_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "30",
        "5 m",
        "s",
        "1h1d",
        "1d1d",
        "-1d",
        "+1d",
        "1e3s",
        "1,5h",
        ".5s",
        "1w",
        "25S",
        "nan",
        "infd",
        "1d;2h",
        "0x1s",
    ],
)
def test_refuses_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write days"):
        parse_duration(text)


def test_refuses_a_duration_beyond_all_numbers() -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration("9" * 400 + "d")


parts = st.integers(min_value=0, max_value=10**6)


@given(days=parts, hours=parts, minutes=parts, seconds=parts)
def test_parts_add_up(days: int, hours: int, minutes: int, seconds: int) -> None:
    expected = days * 86_400 + hours * 3_600 + minutes * 60 + seconds
    assert parse_duration(f"{days}d{hours}h{minutes}m{seconds}s") == expected


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused_with_a_sentence(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError as err:
        assert "duration" in str(err)
    else:
        assert 0 <= seconds < math.inf


@given(st.integers(min_value=0, max_value=10**9))
def test_whole_seconds_survive_a_round_trip(seconds: int) -> None:
    assert parse_duration(render_duration(seconds)) == seconds


@given(st.floats(min_value=0, max_value=10**9))
def test_fractions_survive_a_round_trip_to_the_millisecond(seconds: float) -> None:
    assert parse_duration(render_duration(seconds)) == pytest.approx(seconds, abs=0.001)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (-1, "0s"), (25, "25s"), (2_592_000, "30d"), (5_400, "1h30m"), (0.25, "0.25s")],
)
def test_writes_durations_without_zero_parts(seconds: float, text: str) -> None:
    assert render_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1_023, "1023 B"),
        (1_024, "1.0 KiB"),
        (1_536, "1.5 KiB"),
        (5 * 1024**3, "5.0 GiB"),
        (3 * 1024**5, "3.0 PiB"),
        (4_000 * 1024**5, "4000.0 PiB"),
        (-1_536, "-1.5 KiB"),
    ],
)
def test_writes_sizes_in_binary_units(size: float, text: str) -> None:
    assert render_size(size) == text


@given(st.integers(min_value=0, max_value=1024**7))
def test_a_size_is_right_to_one_decimal_of_its_unit(size: int) -> None:
    text = render_size(size)
    match = re.fullmatch(r"(\d+(?:\.\d)?) (B|KiB|MiB|GiB|TiB|PiB)", text)
    assert match is not None
    unit = 1024 ** ("B", "KiB", "MiB", "GiB", "TiB", "PiB").index(match[2])
    assert abs(float(match[1]) * unit - size) <= 0.051 * unit
