"""What live model versions need, and what must not be taken for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_server.artifacts.locations import normalised
from mlflow_server.gc.references import References

RUN, OTHER = "0123456789abcdef" * 2, "fedcba9876543210" * 2
MODEL = f"m-{RUN}"


@pytest.mark.parametrize(
    "version",
    [
        (RUN, None, None),
        (None, f"runs:/{RUN}/model", None),
        (None, f"s3://bucket/1/{RUN}/artifacts/model", None),
        (None, "s3://else/where", f"mlflow-artifacts:/1/{RUN}/artifacts/model"),
        (None, f"dbfs:/x/{RUN}", None),
        (OTHER, f"file:///srv/1/{RUN}/artifacts", f"models:/{MODEL}"),
    ],
)
def test_a_run_is_needed_whatever_names_it(version: tuple[str | None, ...]) -> None:
    found = References.of([(version[0], version[1], version[2])])
    assert found.protect(RUN, None)


def test_a_logged_model_is_needed_and_the_run_of_the_same_digits_is_not() -> None:
    found = References.of([(None, f"models:/{MODEL}", None)])
    assert found.protect(MODEL, None)
    assert not found.protect(RUN, None)
    assert not found.protect(f"m-{OTHER}", None)


@pytest.mark.parametrize("place", [f"s3://b/x{RUN}", f"s3://b/{RUN}0", f"s3://b/{RUN[:-1]}"])
def test_longer_and_shorter_words_are_no_ids(place: str) -> None:
    assert not References.of([(None, place, None)]).ids


@pytest.mark.parametrize(
    ("location", "touches"),
    [
        ("s3://bucket/models/a", True),
        ("s3://bucket/models/a/", True),
        ("s3://bucket/models//a", True),
        ("s3://bucket/models", True),
        ("s3://bucket/models/a/deeper", True),
        ("s3://bucket/models/ab", False),
        ("s3://bucket/model", False),
        ("s3://other/models/a", False),
        ("s3://bucket/models/a-b", False),
    ],
)
def test_locations_in_and_above_one_another(location: str, touches: bool) -> None:
    found = References.of([(None, "s3://bucket/models/a", None), (None, "s3://bucket/zz", "")])
    assert found.protect(OTHER, location) is touches


def test_nothing_is_needed_where_nothing_is_registered() -> None:
    assert not References.of([]).protect(RUN, f"mlflow-artifacts:/1/{RUN}/artifacts")


PARTS = st.lists(st.sampled_from(["a", "b", "ab", "a-b", "a.b"]), min_size=1, max_size=4)


@given(st.lists(PARTS, max_size=6), PARTS)
def test_like_a_comparison_part_by_part(sources: list[list[str]], entity: list[str]) -> None:
    found = References.of([(None, "s3://" + "/".join(parts), None) for parts in sources])
    expected = any(
        parts[: len(entity)] == entity or entity[: len(parts)] == parts for parts in sources
    )
    assert found.touches(normalised("s3://" + "/".join(entity))) is expected
