"""What is S3's own: how many requests removing takes, and what a server may answer for a key."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import pytest

from mlflow_server.artifacts.buckets import deleting
from mlflow_server.artifacts.removal.freed import Freed
from mlflow_server.artifacts.removal.removers import Removers
from mlflow_server.errors import SettingsError
from tests.standins.forwarder import Answers, Forwarder, Reply, Request, forwarder
from tests.support.s3 import S3Server
from tests.support.shelves import Shelf, s3_shelf

pytestmark = pytest.mark.xdist_group("s3")
RUNS = [f"{number:032x}" for number in range(334)]


@pytest.fixture
def shelf(s3: S3Server, bucket: str) -> Shelf:
    """A prefix of a bucket of this test alone."""
    return s3_shelf(s3, bucket)


@pytest.fixture
def between(shelf: Shelf) -> Iterator[Forwarder]:
    """Stands between the client and the server."""
    with forwarder(shelf.port) as running:
        yield running


@pytest.fixture
def removers(
    shelf: Shelf, between: Forwarder, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Removers]:
    """Of the shelf, through what stands between."""
    for name, value in shelf.at_port(between.port).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    monkeypatch.setattr(deleting, "_PAUSES_S", (0.01, 0.01))
    opened = Removers(shelf.destination, shelf.at_port(between.port))
    yield opened
    opened.close()


def kinds(requests: list[Request]) -> Counter[str]:
    """How many listings, bulk and single deletions."""
    names = {"GET": "list", "POST": "delete many", "DELETE": "delete one"}
    return Counter(names[request.method] for request in requests)


def of(runs: list[str]) -> list[tuple[str, str]]:
    """What `Removers` are asked for."""
    return [(f"mlflow-artifacts:/1/{run}", run) for run in runs]


def test_a_thousand_objects_take_few_requests(
    shelf: Shelf, between: Forwarder, removers: Removers
) -> None:
    shelf.lay(*(f"1/{run}/artifacts/{name}" for run in RUNS for name in "abc"), "1/x", "2/y")
    assert removers.remove(of(RUNS)) == [Freed(3, 15)] * len(RUNS)
    found = kinds(between.requests)
    assert found["delete many"] == 2, "for 1,002 objects"
    assert found["list"] <= 5
    assert set(found) == {"list", "delete many"}
    assert shelf.paths() == {"1/x", "2/y"}
    between.requests.clear()
    assert removers.remove(of(RUNS)) == [Freed()] * len(RUNS)
    assert set(kinds(between.requests)) == {"list"}, "nothing there is nothing to delete"


def test_what_lies_between_costs_nothing(
    shelf: Shelf, between: Forwarder, removers: Removers
) -> None:
    shelf.lay(*(f"1/{run}/artifacts/{name}" for run in RUNS for name in "abcd"))
    assert removers.remove(of([RUNS[5], RUNS[300]])) == [Freed(4, 20)] * 2
    assert kinds(between.requests) == {"list": 2, "delete many": 1}
    assert len(shelf.paths()) == 4 * (len(RUNS) - 2)


def refusing(server: S3Server, bucket: str, *codes: str) -> Answers:
    """Refuses keys that end in `b`, once with each code; the others it deletes, as S3 does."""
    left = list(codes)

    def answer(request: Request) -> Reply | None:
        if request.method != "POST" or not left:
            return None
        code, errors = left.pop(0), ""
        with server.administer() as client:
            for key in re.findall("<Key>([^<]*)</Key>", request.body.decode()):
                if key.endswith("b"):
                    errors += f"<Error><Key>{key}</Key><Code>{code}</Code></Error>"
                else:
                    client.delete_object(Bucket=bucket, Key=key)
        return Reply(200, f"<DeleteResult>{errors}</DeleteResult>".encode())

    return answer


@pytest.mark.parametrize("codes", [("SlowDown",), ("InternalError", "ServiceUnavailable")])
def test_keys_that_are_refused_for_now_are_tried_again(
    shelf: Shelf,
    between: Forwarder,
    removers: Removers,
    s3: S3Server,
    bucket: str,
    codes: tuple[str, ...],
) -> None:
    shelf.lay("1/r/a", "1/r/b", "1/s/b")
    between.answers = refusing(s3, bucket, *codes)
    assert removers.remove(of(["r", "s"])) == [Freed(2, 10), Freed(1, 5)]
    assert kinds(between.requests)["delete many"] == 1 + len(codes)
    assert shelf.paths() == set()


@pytest.mark.parametrize("codes", [("AccessDenied",), ("SlowDown",) * 3])
def test_keys_that_stay_refused_are_told_for_their_place_only(
    shelf: Shelf,
    between: Forwarder,
    removers: Removers,
    s3: S3Server,
    bucket: str,
    codes: tuple[str, ...],
) -> None:
    shelf.lay("1/r/a", "1/r/b", "1/s/a")
    between.answers = refusing(s3, bucket, *codes)
    refused, freed = removers.remove(of(["r", "s"]))
    assert (
        refused == f"MLFLOW_ARTIFACTS_DESTINATION: {shelf.text}: S3 refuses to delete ({codes[0]})"
    )
    assert freed == Freed(1, 5)
    assert shelf.paths() == {"1/r/b"}
    assert removers.remove(of(["r", "s"])) == [Freed(1, 5), Freed()]


def test_a_key_that_is_gone_meanwhile_is_deleted(
    shelf: Shelf, between: Forwarder, removers: Removers, s3: S3Server, bucket: str
) -> None:
    shelf.lay("1/r/b")
    between.answers = refusing(s3, bucket, "NoSuchKey")
    assert removers.remove(of(["r"])) == [Freed(1, 5)]


def test_keys_that_no_xml_can_carry(shelf: Shelf, between: Forwarder, removers: Removers) -> None:
    shelf.lay("1/r/a\x01b", "1/r/c\nd", "1/r/e\rf", "1/r/g", "1/s/h")
    assert removers.remove(of(["r", "s"])) == [Freed(4, 20), Freed(1, 5)]
    assert kinds(between.requests)["delete one"] == 3
    assert shelf.paths() == set()


def test_another_bucket_is_its_own_place(
    shelf: Shelf, removers: Removers, s3: S3Server, bucket: str
) -> None:
    other = f"x{bucket}"
    s3.make_bucket(other)
    with s3.administer() as client:
        for key in ("own/r/artifacts/a", "own/rr/a", "1/r/a"):
            client.put_object(Bucket=other, Key=key, Body=b"12345")
    shelf.lay("1/r/a")
    asked = [(f"s3://{other}/own/r/artifacts", "r"), (f"s3://no{other}/own/r", "r"), *of(["r"])]
    freed, missing, own = removers.remove(asked)
    assert (freed, own) == (Freed(1, 5), Freed(1, 5))
    assert missing == f"s3://no{other}: there is no bucket 'no{other}'"
    assert sorted(s3.content(other)) == ["1/r/a", "own/rr/a"]


@pytest.mark.parametrize(
    "environ",
    [
        {"MLFLOW_S3_ENDPOINT_URL": "not an address"},
        {"AWS_PROFILE": "missing", "AWS_CONFIG_FILE": "/missing"},
    ],
)
def test_settings_that_cannot_be_used_are_78(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    opened = Removers(shelf.destination, environ)
    with pytest.raises(SettingsError):
        opened.check()
    (result,) = opened.remove(of(["r"]))
    assert isinstance(result, str)
    opened.close()
