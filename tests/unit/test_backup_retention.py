"""Which backups may go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from mlflow_server.backup.retention import Retention, choose_kept

MOMENTS = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=4),
    st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    max_size=30,
)
FEW = st.integers(0, 6)
RULES = st.builds(Retention, FEW, FEW, FEW, FEW, st.integers(1, 5))
# A Thursday.
NOW = datetime(2026, 11, 19, 3, 15, tzinfo=UTC)


def daily(count: int) -> dict[str, datetime]:
    """One a day at the same time, `0` is the newest."""
    return {str(number): NOW - timedelta(days=number) for number in range(count)}


def test_the_newest_ones() -> None:
    assert choose_kept(daily(5), Retention(last=2)) == {"0": ["last"], "1": ["last"]}


def test_the_newest_of_each_day() -> None:
    moments = {"noon": NOW, "night": NOW - timedelta(hours=2), "before": NOW - timedelta(days=3)}
    assert list(choose_kept(moments, Retention(daily=2))) == ["noon", "before"]


def test_days_without_one_do_not_count() -> None:
    moments = {"a": NOW, "b": NOW - timedelta(days=40), "c": NOW - timedelta(days=90)}
    assert list(choose_kept(moments, Retention(daily=3))) == ["a", "b", "c"]


def test_weeks_begin_on_monday() -> None:
    kept = choose_kept(daily(14), Retention(weekly=3))
    # Thursday; Sunday of the week before; and of the one before that.
    assert list(kept) == ["0", "4", "11"]


def test_a_week_goes_on_across_new_year() -> None:
    moments = {
        day: datetime.fromisoformat(f"{day}T00:00:00+00:00") for day in ("2026-12-31", "2027-01-01")
    }
    assert list(choose_kept(moments, Retention(weekly=5))) == ["2027-01-01"]


def test_months() -> None:
    assert list(choose_kept(daily(60), Retention(monthly=3))) == ["0", "19", "50"]


def test_rules_add_up_and_are_named() -> None:
    kept = choose_kept(daily(10), Retention(last=1, daily=3, weekly=2))
    assert kept == {
        "0": ["last", "daily", "weekly"], "1": ["daily"], "2": ["daily"], "4": ["weekly"]
    }  # fmt: skip


def test_days_are_those_of_utc() -> None:
    east = datetime.fromisoformat("2026-11-20T01:00:00+05:00")
    moments = {"east": east, "utc": datetime(2026, 11, 19, 1, tzinfo=UTC)}
    assert list(choose_kept(moments, Retention(daily=5))) == ["east"]


def test_a_minimum_stays_whatever_the_rules_say() -> None:
    assert choose_kept(daily(5), Retention(last=1, minimum=3)) == {
        "0": ["last"], "1": ["minimum"], "2": ["minimum"]
    }  # fmt: skip


def test_without_rules_it_says_so() -> None:
    assert not Retention(minimum=7)
    assert Retention(monthly=1)


@given(MOMENTS, RULES)
def test_what_is_kept(moments: dict[str, datetime], rules: Retention) -> None:
    kept = choose_kept(moments, rules)
    assert kept.keys() <= moments.keys()
    assert all(kept.values())
    assert len(kept) >= min(rules.minimum, len(moments))
    newest_first = sorted(moments, key=lambda name: (moments[name], name), reverse=True)
    assert list(kept) == [name for name in newest_first if name in kept]
    assert set(newest_first[: max(rules.last, rules.minimum)]) <= kept.keys()
    for rule, count, period in (
        ("daily", rules.daily, "%Y-%m-%d"), ("weekly", rules.weekly, "%G-%V"),
        ("monthly", rules.monthly, "%Y-%m"),
    ):  # fmt: skip
        periods = dict.fromkeys(moments[name].strftime(period) for name in newest_first)
        named = [moments[name].strftime(period) for name, why in kept.items() if rule in why]
        assert named == list(periods)[:count]


def test_the_minimum_are_the_newest_ones() -> None:
    moments = {"b": NOW, "a": NOW - timedelta(hours=1), "c": NOW - timedelta(days=300)}
    assert choose_kept(moments, Retention(daily=2, minimum=2)) == {
        "b": ["daily"], "a": ["minimum"], "c": ["daily"]
    }  # fmt: skip


@given(MOMENTS, RULES, FEW)
def test_more_rules_keep_more(moments: dict[str, datetime], rules: Retention, more: int) -> None:
    wider = Retention(
        rules.last + more, rules.daily + more, rules.weekly, rules.monthly, rules.minimum
    )
    assert choose_kept(moments, rules).keys() <= choose_kept(moments, wider).keys()


@given(MOMENTS, RULES)
def test_once_more_changes_nothing(moments: dict[str, datetime], rules: Retention) -> None:
    kept = choose_kept(moments, rules)
    assert choose_kept({name: moments[name] for name in kept}, rules).keys() == kept.keys()
