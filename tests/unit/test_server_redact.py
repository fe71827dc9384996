"""Error answers lose their credentials, all others pass untouched."""

from __future__ import annotations

import json

import pytest

from mlflow_server.log import Redactor
from mlflow_server.server.redact import MAX_ERROR_BYTES, RedactErrors
from tests.unit.asgi import Recorder, drive, http_scope

SECRET = "planted-word"
REDACT = Redactor([SECRET])


def test_a_secret_that_lies_across_two_parts_is_masked() -> None:
    pieces = (b"cannot reach planted", b"-word, ", "grüße".encode())
    answer = drive(RedactErrors(Recorder(500, pieces=pieces), REDACT), http_scope())
    assert (answer.status, answer.body.decode()) == (500, "cannot reach ***, grüße")
    assert answer.header("content-length") == str(len(answer.body))


def test_headers_are_kept_and_the_length_is_told_once() -> None:
    headers = ((b"content-type", b"text/plain"), (b"Content-Length", b"12"), (b"x-a", b"b"))
    app = Recorder(404, headers=headers, pieces=(SECRET.encode(),))
    answer = drive(RedactErrors(app, REDACT), http_scope())
    assert answer.headers == [
        (b"content-type", b"text/plain"),
        (b"x-a", b"b"),
        (b"content-length", b"3"),
    ]


@pytest.mark.parametrize("status", [200, 206, 304])
def test_other_answers_pass_part_by_part(status: int) -> None:
    app = Recorder(status, headers=((b"content-length", b"12"),), pieces=(b"planted", b"-word"))
    answer = drive(RedactErrors(app, REDACT), http_scope())
    assert (answer.status, answer.body) == (status, SECRET.encode())


def test_bytes_that_are_no_text_survive() -> None:
    answer = drive(RedactErrors(Recorder(400, pieces=(b"\xff\x00a",)), REDACT), http_scope())
    assert answer.body == b"\xff\x00a"


def test_the_longest_error_is_whole_and_a_longer_one_is_replaced() -> None:
    half = b"x" * (MAX_ERROR_BYTES // 2)
    answer = drive(RedactErrors(Recorder(500, pieces=(half, half)), REDACT), http_scope())
    assert len(answer.body) == MAX_ERROR_BYTES
    app = Recorder(500, headers=((b"content-type", b"text/html"),), pieces=(half, half, b"x"))
    answer = drive(RedactErrors(app, REDACT), http_scope())
    assert answer.status == 500
    assert answer.header("content-type") == "application/json"
    assert answer.header("content-length") == str(len(answer.body))
    assert json.loads(answer.body)["error_code"] == "INTERNAL_ERROR"
