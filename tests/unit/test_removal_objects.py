"""What is common to object stores: bounded memory, full requests, order, patience."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence

import pytest

from mlflow_server.artifacts.buckets import deleting
from mlflow_server.artifacts.buckets.bucket import Object, Page, Refusal
from mlflow_server.artifacts.removal.freed import Found, Freed
from mlflow_server.artifacts.removal.objects import ObjectRemover
from mlflow_server.artifacts.removal.place import Place
from mlflow_server.errors import UnavailableError
from mlflow_server.uris import parse_artifacts_destination

STORE = parse_artifacts_destination("s3://bucket", plugin_schemes=frozenset())


class Bucket:
    """A store in memory that lists keys as they were given; counts what it is asked.

    Args:
        keys: Those that end in a slash stand for folders, and are called without it.
    """

    keys_per_request = 100
    can_skip = True
    has_folders = False

    def __init__(self, *keys: str) -> None:
        self.keys = dict.fromkeys(keys)
        self.lock = threading.Lock()
        self.given = 0
        self.most_given = 0
        self.deletions: list[list[str]] = []
        self.refusals: list[Mapping[str, Refusal]] = []

    def list(self, prefix: str, *, after: str = "", more: str | None = None) -> Page:
        if "unlistable" in prefix:
            raise UnavailableError("no")
        with self.lock:
            keys = [key for key in self.keys if key.startswith(prefix) and key > (more or after)]
            some = keys[:50]
            self.given += len(some)
            self.most_given = max(self.most_given, self.given)
        found = [Object(key.rstrip("/"), 1, 7.0, is_folder=key.endswith("/")) for key in some]
        return Page(found, some[-1] if len(keys) > 50 else None)

    def list_folders(self, prefix: str) -> Iterator[str]:
        raise NotImplementedError

    def delete(self, keys: Sequence[str]) -> Mapping[str, Refusal]:
        with self.lock:
            self.deletions.append(sorted(keys))
            refused = self.refusals.pop(0) if self.refusals else {}
            for key in {*keys} - refused.keys():
                self.keys.pop(key, None)
                self.keys.pop(f"{key}/", None)
                self.given -= 1
        return {key: refusal for key, refusal in refused.items() if key in keys}

    def check(self, prefix: str) -> bool:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is open."""


def places(*names: str) -> list[Place]:
    return [Place(STORE, tuple(name.split("/"))) for name in names]


def remove(bucket: Bucket, *names: str) -> list[Freed | str]:
    remover = ObjectRemover(bucket)
    found = remover.remove(places(*names))
    remover.close()
    return found


def test_little_is_in_memory_however_much_there_is() -> None:
    bucket = Bucket(*(f"a/r/{number:05}" for number in range(20_000)))
    assert remove(bucket, "a/r") == [Freed(20_000, 20_000)]
    assert bucket.most_given <= 200
    assert {len(keys) for keys in bucket.deletions} == {100}


def test_requests_are_full_over_all_places() -> None:
    bucket = Bucket(*(f"{number % 7}/{number:03}/x" for number in range(250)))
    names = [f"{number % 7}/{number:03}" for number in range(250)]
    assert remove(bucket, *names) == [Freed(1, 1)] * 250
    assert sorted(map(len, bucket.deletions)) == [50, 100, 100]


def test_a_store_without_order_is_listed_place_by_place() -> None:
    bucket = Bucket("a/s/1", "a/t/1", "a/r/1", "a/r/2")
    remover = ObjectRemover(bucket)
    found = [Found(2, 2, 7.0), Found(1, 1, 7.0), Found(1, 1, 7.0)]
    assert remover.measure(places("a/r", "a/s", "a/t")) == found
    remover.close()
    freed = [Freed(2, 2), Freed(1, 1), Freed(1, 1)]
    assert remove(bucket, "a/r", "a/s", "a/t") == freed
    assert bucket.keys == {}


def test_what_stands_for_folders_goes_at_last_and_is_not_counted() -> None:
    bucket = Bucket("a/r/", "a/r/x/", "a/r/x/1", "a/r/y/", "a/r/y/z/", "a/r/2")
    bucket.has_folders = True
    assert remove(bucket, "a/r", "a/s") == [Freed(2, 2), Freed()]
    assert bucket.deletions == [
        ["a/r/2", "a/r/x/1"],
        ["a/r/y/z"],
        ["a/r/x", "a/r/y"],
        ["a/r", "a/s"],
    ]


def test_the_folder_of_an_id_stays_when_something_is_beside_the_location() -> None:
    bucket = Bucket("a/r/x/", "a/r/x/y/", "a/r/x/y/1", "a/r/2", "a/s/x/", "a/s/x/y/", "a/s/x/y/1")
    bucket.has_folders = True
    remover = ObjectRemover(bucket)
    asked = [Place(STORE, ("a", name), ("x", "y")) for name in "rs"]
    assert remover.measure(asked) == [Found(1, 1, 7.0)] * 2
    assert remover.remove(asked) == [Freed(1, 1)] * 2
    remover.close()
    assert bucket.deletions[1:] == [["a/r/x/y", "a/s/x/y"], ["a/s/x"], ["a/s"]]
    assert list(bucket.keys) == ["a/r/x/", "a/r/2"]


def test_the_first_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deleting, "_PAUSES_S", (0.0, 0.0))
    later, never = Refusal("later", is_temporary=True), Refusal("never")
    bucket = Bucket("a/r/1", "a/r/2", "a/s/1", "a/t/1")
    bucket.refusals = [
        {"a/r/1": later, "a/r/2": never, "a/s/1": later, "a/t/1": later},
        {"a/s/1": later, "a/t/1": later},
        {"a/t/1": later},
    ]
    assert remove(bucket, "a/r", "a/s", "a/t", "unlistable/u") == [
        "never",
        Freed(1, 1),
        "later",
        "no",
    ]
    assert list(bucket.keys) == ["a/r/2", "a/t/1"]
    tried = [["a/r/1", "a/r/2", "a/s/1", "a/t/1"], ["a/r/1", "a/s/1", "a/t/1"], ["a/s/1", "a/t/1"]]
    assert bucket.deletions == tried
