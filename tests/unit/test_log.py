"""Log lines: their form, and that no secret gets into one."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_server.log import (
    FIELDS,
    JsonFormatter,
    Redactor,
    TextFormatter,
    adopt_library_loggers,
    configure_logging,
)
from mlflow_server.uris import MASK

SECRET = "S3cr3tMarker"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord(
        "mlflow_server.test", logging.INFO, __file__, 1, message, arguments, None
    )
    for name, value in extra.items():
        setattr(made, name, value)
    return made


def failure_record(message: str, err: Exception) -> logging.LogRecord:
    try:
        raise err
    except type(err):
        made = record(message)
        made.exc_info = sys.exc_info()
    return made


@pytest.fixture
def logging_restored() -> Iterator[None]:
    """The logging of this process as it was, whatever the test configures."""
    root, ours = logging.getLogger(), logging.getLogger("mlflow_server")
    before = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:], root.level, ours.level = before[0], before[1], before[2]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    logging.captureWarnings(False)


# Redaction


def test_replaces_every_known_secret() -> None:
    redact = Redactor([SECRET, "other-one"])
    assert redact(f"a {SECRET} b other-one {SECRET}") == f"a {MASK} b {MASK} {MASK}"


def test_a_secret_inside_another_does_not_uncover_its_rest() -> None:
    redact = Redactor(["abcd", "abcdefgh"])
    assert redact("abcdefgh") == MASK


def test_secrets_are_taken_literally() -> None:
    assert Redactor([".*+?"])("abc .*+? def") == f"abc {MASK} def"


def test_short_secrets_are_masked_in_urls_only() -> None:
    redact = Redactor(["abc"])
    assert redact("abc postgresql://u:abc@db/x") == f"abc postgresql://u:{MASK}@db/x"


def test_masks_credentials_of_urls_nobody_told_it_about() -> None:
    text = f"cannot open 'postgresql://u:{SECRET}@db/x', see https://t:{SECRET}@host/y."
    assert Redactor()(text) == (
        f"cannot open 'postgresql://u:{MASK}@db/x', see https://t:{MASK}@host/y."
    )


def test_leaves_ordinary_text_alone() -> None:
    text = "GET https://mlflow.example.com/a?b=c and s3://bucket/key"
    assert Redactor([SECRET])(text) == text


secrets = st.text(st.characters(exclude_characters="*\n"), min_size=4, max_size=20)


@given(st.lists(secrets, min_size=1, max_size=5), st.text(max_size=20), st.text(max_size=20))
def test_no_known_secret_survives(known: list[str], before: str, after: str) -> None:
    redact = Redactor(known)
    for secret in known:
        shown = redact(f"{before}\n{secret}\n{after}")
        assert secret not in shown or secret in before or secret in after


# Formats


def test_a_text_line_has_time_level_logger_message_and_fields() -> None:
    line = TextFormatter(Redactor()).format(
        record("%s done", "all", request_id="r1", status=200, duration_s=0.5, event="request")
    )
    time, level, rest = line.split(" ", 2)
    assert TIME.fullmatch(time)
    assert level == "INFO"
    assert rest == "mlflow_server.test: all done request_id=r1 status=200 duration_s=0.5"


def test_a_json_line_is_one_object_with_the_documented_keys() -> None:
    values = {name: f"value of {name}" for name in FIELDS}
    line = JsonFormatter(Redactor()).format(record("all %s", "done", **values))
    assert "\n" not in line
    document = json.loads(line)
    assert TIME.fullmatch(document.pop("time"))
    assert isinstance(document.pop("pid"), int)
    expected = {"level": "INFO", "logger": "mlflow_server.test", "msg": "all done", **values}
    assert document == expected


def test_a_json_line_keeps_numbers_as_numbers() -> None:
    line = JsonFormatter(Redactor()).format(record("x", status=200, duration_s=0.25))
    document = json.loads(line)
    assert (document["status"], document["duration_s"]) == (200, 0.25)


@pytest.mark.parametrize("formatter", [TextFormatter, JsonFormatter])
def test_no_secret_gets_through_by_message_argument_or_field(
    formatter: type[logging.Formatter],
) -> None:
    made = record(f"{SECRET} %s %r", SECRET, {"k": SECRET}, route=SECRET, request_id=SECRET)
    assert SECRET not in formatter(Redactor([SECRET])).format(made)  # type: ignore[arg-type]


@pytest.mark.parametrize("formatter", [TextFormatter, JsonFormatter])
def test_no_secret_gets_through_in_a_traceback(formatter: type[logging.Formatter]) -> None:
    uri = f"postgresql://u:other{SECRET}@db/x"
    made = failure_record("failed", ValueError(f"cannot open {uri} with {SECRET}"))
    line = formatter(Redactor([SECRET])).format(made)  # type: ignore[arg-type]
    assert SECRET not in line
    assert "ValueError" in line
    assert "Traceback" in line


@pytest.mark.parametrize("formatter", [TextFormatter, JsonFormatter])
@pytest.mark.parametrize("secret", ["with'quote\"s", "back\\slash", "new\nline", "ünïcode€"])
def test_a_secret_is_found_in_the_representation_of_an_error(
    formatter: type[logging.Formatter], secret: str
) -> None:
    """Libraries log `repr(...)`, which escapes quotes, backslashes and line ends."""
    made = failure_record("failed", KeyError(secret))
    made.msg, made.args = "options: %r", ({"password": secret},)
    line = formatter(Redactor([secret])).format(made)  # type: ignore[arg-type]
    text = json.loads(line)["msg"] if formatter is JsonFormatter else line
    assert secret not in text
    assert repr(secret)[1:-1] not in text


def test_a_json_traceback_has_type_message_and_stack() -> None:
    line = JsonFormatter(Redactor()).format(failure_record("failed", ValueError("why")))
    error = json.loads(line)["error"]
    assert (error["type"], error["msg"]) == ("ValueError", "why")
    assert error["stack"].startswith("Traceback")


def test_a_text_line_without_traceback_is_one_line_whatever_a_client_sends() -> None:
    """A path such as `/a%0aERROR ...` must not write a line of its own into the log."""
    line = TextFormatter(Redactor()).format(record("GET %s 404", "/a\nERROR forged\r\n\x1b[31m"))
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line


@given(st.text(), st.text(max_size=20))
def test_json_lines_hold_any_text(message: str, route: str) -> None:
    line = JsonFormatter(Redactor()).format(record("%s", message, route=route))
    assert "\n" not in line
    assert json.loads(line)["msg"] == Redactor()(message)


# Set-up


@pytest.mark.parametrize(
    ("verbosity", "ours", "theirs"),
    [
        (-1, ["WARNING"], ["WARNING"]),
        (0, ["WARNING", "INFO"], ["WARNING"]),
        (1, ["WARNING", "INFO", "DEBUG"], ["WARNING"]),
        (2, ["WARNING", "INFO", "DEBUG"], ["WARNING", "INFO", "DEBUG"]),
    ],
)
def test_verbosity_chooses_what_is_written(
    logging_restored: None, verbosity: int, ours: list[str], theirs: list[str]
) -> None:
    stream = io.StringIO()
    configure_logging(log_format="json", verbosity=verbosity, stream=stream)
    for name in ("mlflow_server.test", "some_library"):
        logger = logging.getLogger(name)
        logger.warning("x")
        logger.info("x")
        logger.debug("x")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    levels = {name: [line["level"] for line in lines if line["logger"] == name] for name in
              ("mlflow_server.test", "some_library")}  # fmt: skip
    assert levels == {"mlflow_server.test": ours, "some_library": theirs}


def test_configuring_twice_writes_each_line_once(logging_restored: None) -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging(stream=first)
    configure_logging(stream=second)
    logging.getLogger("mlflow_server.test").info("x")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


def test_logs_go_to_stderr_and_never_to_stdout(
    logging_restored: None, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(secrets=[SECRET])
    logging.getLogger("mlflow_server.test").info("token %s", SECRET)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"token {MASK}" in captured.err


def test_warnings_of_python_are_logged_too(logging_restored: None) -> None:
    import warnings

    stream = io.StringIO()
    configure_logging(secrets=[SECRET], stream=stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # Within the block: leaving it puts back the function that logging has replaced.
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn(f"careful with {SECRET}", UserWarning, stacklevel=1)
        logging.captureWarnings(False)
    assert "careful with" in stream.getvalue()
    assert SECRET not in stream.getvalue()


def test_handlers_of_libraries_are_taken_away() -> None:
    """Written straight to stderr by a library's own handler, a secret would not be masked."""
    library = logging.getLogger("some_library.deep")
    beside = logging.getLogger("some_library_beside")
    for logger in (library, beside):
        logger.addHandler(logging.NullHandler())
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
    try:
        adopt_library_loggers(["some_library"])
        assert (library.handlers, library.level, library.propagate) == ([], logging.NOTSET, True)
        assert (len(beside.handlers), beside.propagate) == (1, False)
    finally:
        for logger in (library, beside):
            logger.handlers.clear()
            logger.setLevel(logging.NOTSET)
            logger.propagate = True
