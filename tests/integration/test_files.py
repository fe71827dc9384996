"""What can be done with files wherever they are; one suite for every kind of destination.

Local folders, a real S3 server, servers of GCS's and Azure's APIs; for Data Lake a stand-in, as
nothing else speaks its language.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from mlflow_server.artifacts.buckets import azure, deleting, gcs
from mlflow_server.artifacts.files import ChangedError, Files, VanishedError, open_files, resuming
from mlflow_server.errors import BadInputError, ExitCode, OpsError, SettingsError, UnavailableError
from mlflow_server.uris import parse_artifacts_destination
from tests.standins.forwarder import Answers, Cut, Forwarder, Reply, Request, forwarder
from tests.support.shelves import Shelf

ODD = (
    "größe 1 %.txt",
    "a+b#c&d=e;f?g",
    "%41%2F",
    "naïve\U0001f600",
    "'\"<>",
    "n" * 200,
    " x ",
    "~",
)
PART = 8 * 1024 * 1024

Open = Callable[[Shelf], Files]
KINDS = [
    pytest.param(kind, marks=pytest.mark.xdist_group(group))
    for kind, group in {
        "local": "files",
        "s3": "s3",
        "gcs": "gcs",
        "azure": "azure",
        "lake": "files",
    }.items()
]
REMOTE = [param for param in KINDS if param.values != ("local",)]


@pytest.fixture
def open_them(monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Open what is closed at the end; client libraries look into the environment by themselves."""
    opened = []

    def open_one(shelf: Shelf) -> Files:
        for name, value in shelf.environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # it remembers credentials
        monkeypatch.setattr(gcs, "_PATIENCE_S", 1.0)
        monkeypatch.setitem(azure.LIMITS, "increment_base", 0.1)
        monkeypatch.setattr(resuming, "_PAUSES_S", (0.01, 0.01))
        monkeypatch.setattr(deleting, "_PAUSES_S", (0.01, 0.01))
        opened.append(open_files(shelf.destination, shelf.environ, subject="SUBJECT"))
        return opened[-1]

    yield open_one
    for files in opened:
        files.close()


def paths(files: Files, below: str = "") -> list[str]:
    """What a walk comes by, sorted."""
    return sorted(file.path for file in files.walk(below))


# --- What is there -----------------------------------------------------------------------------


@pytest.mark.parametrize("shelf", KINDS, indirect=True)
def test_what_is_written_is_found_and_read(shelf: Shelf, open_them: Open) -> None:
    files = open_them(shelf)
    contents = {f"1/{name}/{name}": os.urandom(number) for number, name in enumerate(ODD)}
    for path, content in contents.items():
        files.write(path, content)
    contents |= {"stream": b"1" * 5000, "some": b"chunks", "deep/" * 30 + "x": b"deep", "y": b""}
    files.write("stream", io.BytesIO(b"1" * 5000), 5000)
    files.write("some", iter([b"chu", b"", b"nks"]), durable=True)
    files.write("deep/" * 30 + "x", [b"deep"], 4)
    files.write("y", [])
    assert shelf.paths() == set(contents)
    found = list(files.walk())
    assert sorted(file.path for file in found) == sorted(contents)
    for file in found:
        assert file.size_bytes == len(contents[file.path])
        assert files.find(file.path) == file
        assert files.read(file.path) == contents[file.path]
        with files.open(file.path) as reader:
            assert reader.file == file
    assert sorted(files.folders()) == ["1", "deep"]
    assert sorted(files.folders("1")) == sorted(ODD)


@pytest.mark.parametrize("shelf", KINDS, indirect=True)
def test_a_file_of_several_parts(shelf: Shelf, open_them: Open) -> None:
    files = open_them(shelf)
    content = os.urandom(2 * PART + 7)
    files.write("a/known", io.BytesIO(content), len(content))
    files.write("a/whole", content[: 2 * PART])
    files.write(
        "a/unknown", (content[start : start + 999_999] for start in range(0, PART + 1, 999_999))
    )
    assert files.read("a/whole") == content[: 2 * PART]
    assert files.read("a/unknown") == content[: 9 * 999_999]
    with files.open("a/known") as reader:
        assert reader.read(10) == content[:10]
        assert reader.read(PART) == content[10 : PART + 10]
        assert reader.read() == content[PART + 10 :]
        assert reader.read(1) == reader.read() == b""
    assert shelf.paths() == {"a/known", "a/whole", "a/unknown"}


@pytest.mark.parametrize("shelf", KINDS, indirect=True)
def test_reading_begins_anywhere(shelf: Shelf, open_them: Open) -> None:
    files = open_them(shelf)
    files.write("a", b"0123456789")
    files.write("empty", b"")
    for path, start, expected in [
        ("a", 0, b"0123456789"),
        ("a", 9, b"9"),
        ("a", 10, b""),
        ("a", 11, b""),
        ("empty", 0, b""),
        ("empty", 1, b""),
    ]:
        with files.open(path, start) as reader:
            assert reader.file == files.find(path)
            assert reader.read() == expected


@pytest.mark.parametrize("shelf", KINDS, indirect=True)
def test_a_walk_stays_below(shelf: Shelf, open_them: Open) -> None:
    shelf.lay("1/a/x", "1/a/y/z", "1/a-b/x", "1/ab", "1/a.txt", "10/a/x")
    files = open_them(shelf)
    assert paths(files, "1/a") == ["1/a/x", "1/a/y/z"]
    assert paths(files, "1") == ["1/a-b/x", "1/a.txt", "1/a/x", "1/a/y/z", "1/ab"]
    assert sorted(files.folders("1")) == ["a", "a-b"]
    for missing in ("2", "1/a/y/nothing", "1/ab/c"):
        assert paths(files, missing) == list(files.folders(missing)) == []
    assert [files.find(path) for path in ("1", "1/a", "2", "1/a/b/c", "1/A")] == [None] * 5


@pytest.mark.parametrize("shelf", KINDS, indirect=True)
def test_a_walk_over_several_pages(shelf: Shelf, open_them: Open) -> None:
    # More than the 1,000 objects of a page; those of the stand-ins are smaller.
    count = 250 if shelf.text.startswith("abfss:") else min(shelf.many, 1_050)
    many = {f"1/{number % 7}/{number}" for number in range(count)}
    shelf.lay(*many)
    found = [file.path for file in open_them(shelf).walk("1")]
    assert len(found) == len(many)
    assert set(found) == many


@pytest.mark.parametrize("shelf", KINDS, indirect=True)
def test_another_content_has_another_stamp(shelf: Shelf, open_them: Open) -> None:
    files = open_them(shelf)
    shelf.write({"a": b"12345", "b": b"12345"})
    before = {file.path: file for file in files.walk()}
    assert {file.path: file for file in files.walk()} == before
    shelf.write({"a": b"54321"})
    after = {file.path: file for file in files.walk()}
    assert after["a"].stamp != before["a"].stamp
    assert after["b"] == before["b"]


@pytest.mark.parametrize("shelf", KINDS, indirect=True)
def test_what_is_not_there_has_vanished(shelf: Shelf, open_them: Open) -> None:
    shelf.lay("a/b")
    files = open_them(shelf)
    for path in ("x", "a/x", "x/y", "a/b/c"):
        with pytest.raises(VanishedError):
            files.read(path)
    with pytest.raises(OpsError):
        files.read("a")


@pytest.mark.parametrize("shelf", KINDS, indirect=True)
def test_paths_that_lead_elsewhere_are_refused(shelf: Shelf, open_them: Open) -> None:
    files = open_them(shelf)
    for path in ("", "/a", "../a", "a/../b", "a/", ".", "a/./b", "..", "a\0b", "a/.."):
        works: list[Callable[[], object]] = [
            lambda path=path: files.write(path, b"x"),  # type: ignore[misc]
            lambda path=path: files.read(path),  # type: ignore[misc]
            lambda path=path: files.find(path),  # type: ignore[misc]
            lambda path=path: files.remove([path]),  # type: ignore[misc]
            lambda path=path: files.remove_tree(path),  # type: ignore[misc]
            lambda path=path: list(files.walk(path or "/")),  # type: ignore[misc]
        ]
        for work in works:
            with pytest.raises(BadInputError):
                work()
    assert shelf.paths() == set()


# --- What is written and removed ---------------------------------------------------------------


def breaking_off(size: int) -> Iterator[bytes]:
    """A content that fails at its end."""
    yield b"x" * size
    raise ValueError("of the source")


@pytest.mark.parametrize("shelf", KINDS, indirect=True)
def test_a_file_is_written_whole_or_not_at_all(shelf: Shelf, open_them: Open) -> None:
    shelf.lay("a")
    files = open_them(shelf)
    for path in ("a", "b/c"):
        for size in (5, 2 * PART + 5):
            with pytest.raises(ValueError, match="of the source"):
                files.write(path, breaking_off(size))
            with pytest.raises(ChangedError):
                files.write(path, io.BytesIO(b"x" * size), size + 1)
            with pytest.raises(ChangedError):
                files.write(path, [b"x" * (size - 1), b"xx"], size)
    assert shelf.paths() == {"a"}
    assert files.read("a") == b"12345"
    files.write("a", b"another one")
    assert files.read("a") == b"another one"


@pytest.mark.parametrize("shelf", KINDS, indirect=True)
def test_files_are_removed(shelf: Shelf, open_them: Open) -> None:
    going = [f"1/{name}" for name in ODD] + [f"2/{number}" for number in range(110)]
    shelf.lay(*going, "1/x", "3")
    files = open_them(shelf)
    files.remove([*going, "4", "2/x", "5/y"])
    assert shelf.paths() == {"1/x", "3"}
    files.remove(going)
    files.remove([])


@pytest.mark.parametrize("shelf", KINDS, indirect=True)
def test_trees_are_removed(shelf: Shelf, open_them: Open) -> None:
    shelf.lay("1/a/x", "1/a/y/z", "1/a-b/x", "1/ab", "10/a/x")
    files = open_them(shelf)
    files.remove_tree("1/a")
    assert shelf.paths() == {"1/a-b/x", "1/ab", "10/a/x"}
    for path in ("1/a", "2/x"):
        files.remove_tree(path)
    files.remove_tree("1")
    assert shelf.paths() == {"10/a/x"}
    assert paths(files) == ["10/a/x"]


@pytest.mark.parametrize("shelf", KINDS, indirect=True)
def test_many_threads_at_once(shelf: Shelf, open_them: Open) -> None:
    files = open_them(shelf)

    def work(number: int) -> None:
        path, content = f"{number % 3}/{number}", bytes([number]) * number
        files.write(path, content)
        assert files.read(path) == content
        assert path in paths(files, str(number % 3))
        if number % 2:
            files.remove([path])
        files.write("same", b"s" * 1000)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(work, range(48)))
    assert shelf.paths() == {"same", *(f"{number % 3}/{number}" for number in range(0, 48, 2))}
    assert files.read("same") == b"s" * 1000


# --- Whether it can ----------------------------------------------------------------------------


def every_way(files: Files) -> list[Callable[[], object]]:
    """All that asks the store."""
    return [
        lambda: list(files.walk()),
        lambda: list(files.folders()),
        lambda: files.find("a"),
        lambda: files.read("a"),
        lambda: files.write("b", b"x"),
        lambda: files.write("b", [b"x" * (PART + 1)]),
        lambda: files.remove(["a"]),
        lambda: files.remove_tree("a"),
    ]


@pytest.mark.parametrize("shelf", REMOTE, indirect=True)
def test_refused_credentials_are_not_told(shelf: Shelf, open_them: Open) -> None:
    shelf.lay("a")
    files = open_them(replace(shelf, environ=shelf.refused))
    for work in every_way(files):
        with pytest.raises(OpsError) as failure:
            work()
        told = failure.value.message + (failure.value.hint or "")
        assert "hidden" not in told
        assert failure.value.exit_code in (ExitCode.NOT_PERMITTED, ExitCode.UNAVAILABLE), told
    assert shelf.paths() == {"a"}


@pytest.mark.parametrize("shelf", REMOTE, indirect=True)
def test_a_store_that_is_not_there_is_69(shelf: Shelf, open_them: Open) -> None:
    files = open_them(shelf.where_nothing_is)
    for work in every_way(files)[:4]:
        with pytest.raises(OpsError) as failure:
            work()
        assert failure.value.exit_code is ExitCode.UNAVAILABLE, failure.value
        assert failure.value.message.startswith("SUBJECT: ")


@pytest.mark.parametrize("text", ["mlflow-artifacts:/a", "hdfs://a/b", "dbfs:/a"])
def test_other_schemes_are_refused(text: str) -> None:
    uri = parse_artifacts_destination(text, plugin_schemes=frozenset())
    with pytest.raises(SettingsError, match=text.partition(":")[0]):
        open_files(uri, {}, subject="SUBJECT")


# --- Whatever the network does -----------------------------------------------------------------


@pytest.fixture
def through(shelf: Shelf, open_them: Open) -> Iterator[tuple[Files, Forwarder]]:
    """Files of a shelf through something that may break off."""
    with forwarder(shelf.port) as between:
        yield open_them(replace(shelf, environ=shelf.at_port(between.port))), between


Through = tuple[Files, Forwarder]


def reads(request: Request) -> bool:
    """True for a request for a content."""
    is_listing = any(word in request.path for word in ("restype", "list-type", "resource="))
    is_about = "/storage/v1/b/" in request.path and "alt=media" not in request.path
    return request.method == "GET" and not is_listing and not is_about


def cutting(*after: int) -> Answers:
    """Breaks off the first contents that are read after so many bytes each."""
    left = list(after)
    return lambda request: Cut(left.pop(0)) if reads(request) and left else None


@pytest.mark.parametrize("shelf", REMOTE, indirect=True)
def test_a_store_that_answers_503_now_and_then(shelf: Shelf, through: Through) -> None:
    files, between = through
    between.answers = lambda request: Reply(503) if request.number % 4 == 0 else None
    content = os.urandom(PART + 10)
    for number in range(4):
        files.write(f"1/{number}", bytes([number]))
        assert files.read(f"1/{number}") == bytes([number])
    files.write("1/large", content)
    assert files.read("1/large") == content
    assert len(paths(files)) == 5
    files.remove(["1/1", "1/2"])
    files.remove_tree("1")
    assert any(request.number % 4 == 0 for request in between.requests)
    assert shelf.paths() == set()


@pytest.mark.parametrize("shelf", REMOTE, indirect=True)
def test_a_store_that_answers_503_always(shelf: Shelf, through: Through) -> None:
    files, between = through
    between.answers = lambda _: Reply(503)
    for number in (0, 3, 4):
        with pytest.raises(UnavailableError, match="503"):
            every_way(files)[number]()
    assert shelf.paths() == set()


@pytest.mark.parametrize("shelf", REMOTE, indirect=True)
def test_a_body_that_breaks_off_is_read_on(shelf: Shelf, through: Through) -> None:
    files, between = through
    content = os.urandom(PART + 1000)
    shelf.write({"a": content, "b": content[:1000]})
    between.answers = cutting(1)
    assert files.read("b") == content[:1000]
    between.answers = cutting(PART // 2)
    assert files.read("a") == content
    asked = [request for request in between.requests if reads(request)]
    assert len(asked) >= 4
    assert any("range" in name for name in asked[-1].headers)


@pytest.mark.parametrize("shelf", REMOTE, indirect=True)
@pytest.mark.parametrize("what", ["changed", "vanished"])
def test_a_body_of_something_else_is_not_read_on(shelf: Shelf, through: Through, what: str) -> None:
    files, between = through
    content = os.urandom(2 * PART + 1000)
    shelf.write({"a": content})
    if shelf.text.startswith("s3:"):  # the others' libraries ask for parts
        between.answers = cutting(20)
    with files.open("a") as reader:
        assert reader.read(10) == content[:10]
        if what == "changed":
            shelf.write({"a": content[::-1]})
        else:
            files.remove(["a"])
        expected = ChangedError if what == "changed" else VanishedError
        with pytest.raises(expected):
            reader.read()


@pytest.mark.parametrize("shelf", REMOTE, indirect=True)
def test_bodies_that_break_off_always(shelf: Shelf, through: Through) -> None:
    files, between = through
    shelf.write({"a": b"x" * 1000})
    between.answers = lambda request: Cut(0) if reads(request) else None
    with pytest.raises(UnavailableError):
        files.read("a")
