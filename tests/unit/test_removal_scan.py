"""Folders next to each other are found with few listings, whatever lies between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_server.artifacts.buckets.bucket import Object, Page
from mlflow_server.artifacts.removal.scan import UnorderedError, can_scan, scan

ABOVE = "some/prefix/"


def by_whole_keys(key: str) -> tuple[str, ...]:
    """How S3 sorts."""
    return (key,)


def folder_by_folder(key: str) -> tuple[str, ...]:
    """How SeaweedFS sorts."""
    return tuple(key.split("/"))


@dataclass
class Listing:
    """A store in memory.

    Args:
        keys: Of its objects.
        order: How it sorts them.
        page_size: How many it gives at a time.
        leaves_out: Asked for what comes after `a`, it leaves `a/b` out, as SeaweedFS does.
        requests: How often it was asked.
    """

    keys: Sequence[str]
    order: Callable[[str], tuple[str, ...]] = by_whole_keys
    page_size: int = 1_000
    leaves_out: bool = False
    requests: int = field(default=0, init=False)

    def page(self, after: str, more: str | None) -> Page:
        """See `scan`; `more` is the last key."""
        self.requests += 1
        keys = sorted((key for key in self.keys if key.startswith(ABOVE)), key=self.order)
        keys = [key for key in keys if self.order(key) > self.order(more or after)]
        if self.leaves_out and more is None:
            keys = [key for key in keys if not key.startswith(f"{after}/")]
        some = keys[: self.page_size]
        more = some[-1] if len(keys) > len(some) else None
        return Page([Object(key, 1, 0.0) for key in some], more)

    def find(self, names: Sequence[str]) -> list[str]:
        """What `scan` makes of it."""
        found = []
        for page in scan(ABOVE, names, self.page):
            for number, each in page:
                assert each.key.startswith(f"{ABOVE}{names[number]}/")
                found.append(each.key)
        return found


def in_folders(keys: Sequence[str], names: Sequence[str]) -> list[str]:
    """What should be found."""
    return sorted(key for key in keys if key.removeprefix(ABOVE).partition("/")[0] in names
                  and "/" in key.removeprefix(ABOVE))  # fmt: skip


NAMES = st.text("a09~-.!ü", min_size=1, max_size=3)
KEYS = st.lists(
    st.tuples(NAMES, st.sampled_from(["", "/", "/x", "/x-1", "/x/y", "/z"])).map("".join),
    unique=True,
    max_size=60,
).map(lambda keys: [ABOVE + key for key in keys])


@given(KEYS, st.sets(NAMES, min_size=1), st.integers(1, 7))
def test_exactly_what_is_in_the_folders_is_found(
    keys: list[str], wanted: set[str], page_size: int
) -> None:
    names = sorted(wanted)
    if can_scan(names):
        assert sorted(Listing(keys, page_size=page_size).find(names)) == in_folders(keys, names)


@given(KEYS, st.sets(NAMES, min_size=1), st.integers(1, 7), st.booleans())
def test_a_store_that_sorts_folder_by_folder_hides_nothing(
    keys: list[str], wanted: set[str], page_size: int, leaves_out: bool
) -> None:
    names = sorted(wanted)
    listing = Listing(keys, folder_by_folder, page_size, leaves_out)
    if can_scan(names):
        try:
            found = listing.find(names)
        except UnorderedError:
            return
        assert sorted(found) == in_folders(keys, names)


def test_a_store_without_order_is_found_out() -> None:
    keys = [f"{ABOVE}{name}/x" for name in "cab"]
    listing = Listing(keys, order=lambda key: (str(keys.index(key) if key in keys else -1),))
    with pytest.raises(UnorderedError):
        listing.find(["a", "b", "c"])


@given(st.lists(st.integers(0, 2**32), unique=True, max_size=80), st.data())
def test_one_listing_per_folder_and_full_page_at_most(ids: list[int], data: st.DataObject) -> None:
    there = {f"{each:08x}": data.draw(st.integers(0, 12)) for each in ids}
    keys = [f"{ABOVE}{name}/{n:03}" for name, count in there.items() for n in range(count)]
    names = sorted(data.draw(st.sets(st.sampled_from([*there, "0", "z"]), min_size=1)))
    listing = Listing(keys, page_size=5)
    assert len(listing.find(names)) == sum(there.get(name, 0) for name in names)
    assert listing.requests <= len(names) + sum(there.get(name, 0) for name in names) // 5


def test_neighbours_share_listings() -> None:
    names = [f"{number:032x}" for number in range(334)]
    listing = Listing([f"{ABOVE}{name}/artifacts/{file}" for name in names for file in "abc"])
    assert len(listing.find(names)) == 1_002
    assert listing.requests == 2
    assert len(listing.find(names[:100])) == 300
    assert listing.requests == 3


def test_what_lies_between_is_leapt_over() -> None:
    listing = Listing([f"{ABOVE}{number:08x}/x" for number in range(20_000)])
    assert len(listing.find(["00000001", "00004000"])) == 2
    assert listing.requests == 2
