"""Log set-up: one handler on stderr, text or JSON lines, secrets redacted. Nothing else logs to a
file or to stdout.
"""

import json
import logging
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from mlflow_server.report import render_time
from mlflow_server.uris import MASK, mask_uri

# Extra fields of a record that become keys of a JSON line.
FIELDS = (
    "event",
    "request_id",
    "method",
    "route",
    "status",
    "duration_s",
    "bytes_in",
    "bytes_out",
    "remote_ip",
)
_SHORT_SECRET = 4
# They warn at length, line after line, of what their errors then say once.
_WORDY = ("azure.identity", "google.auth")
# What a client sends may hold line ends and terminal codes; a log line is one line.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
# A few libraries log whole URLs; a URL in running text ends at white space or a quote.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")


class Redactor:
    """Replaces every known secret, and any credential inside a URL, by `***`.

    Args:
        secrets: Texts that must not appear. Those of fewer than 4 characters are only masked inside
            URLs: replacing them everywhere would make logs unreadable and give them away.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {
            form
            for secret in secrets
            if len(secret) >= _SHORT_SECRET
            # As it is, and as a library's `repr()` or JSON shows it.
            for form in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1])
        }
        known = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        if self._pattern is not None:
            text = self._pattern.sub(MASK, text)
        if "://" in text:
            text = _URL.sub(lambda match: mask_uri(match[0]), text)
        return text


class _Formatter(logging.Formatter):
    def __init__(self, redact: Redactor) -> None:
        super().__init__()
        self._redact = redact

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return render_time(datetime.fromtimestamp(record.created, UTC))


class TextFormatter(_Formatter):
    """`2026-01-31T12:00:00.000Z INFO mlflow_server.server: message key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, or more when there is a traceback."""
        fields = "".join(
            f" {name}={getattr(record, name)}" for name in FIELDS[1:] if hasattr(record, name)
        )
        message = _CONTROL.sub(
            lambda match: repr(match[0])[1:-1], self._redact(record.getMessage())
        )
        line = f"{self.formatTime(record)} {record.levelname} {record.name}: {message}"
        if record.exc_info:
            fields += "\n" + self.formatException(record.exc_info)
        return self._redact(line + fields)


class JsonFormatter(_Formatter):
    """One JSON object a line; keys as in `docs/commands.md`."""

    def format(self, record: logging.LogRecord) -> str:
        """The object; a traceback goes into `error.stack`."""
        document: dict[str, Any] = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "pid": record.process,
            "msg": self._redact(record.getMessage()),
        }
        for name in FIELDS:
            if hasattr(record, name):
                value = getattr(record, name)
                document[name] = self._redact(value) if isinstance(value, str) else value
        if record.exc_info and record.exc_info[0] is not None:
            document["error"] = {
                "type": record.exc_info[0].__name__,
                "msg": self._redact(str(record.exc_info[1])),
                "stack": self._redact(self.formatException(record.exc_info)),
            }
        return json.dumps(document, ensure_ascii=False)


def configure_logging(
    *,
    log_format: Literal["text", "json"] = "text",
    verbosity: int = 0,
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Send all logging of this process to stderr.

    Args:
        log_format: Lines for people or for machines.
        verbosity: -1 warnings only, 0 information, 1 our debug lines, 2 those of libraries too.
        secrets: Texts that must never appear.
        stream: Where to instead of stderr.
    """
    redact = Redactor(secrets)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(redact) if log_format == "json" else TextFormatter(redact))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbosity >= 2 else logging.WARNING)
    ours = {-1: logging.WARNING, 0: logging.INFO}.get(verbosity, logging.DEBUG)
    logging.getLogger("mlflow_server").setLevel(ours)
    for name in _WORDY:
        logging.getLogger(name).setLevel(logging.NOTSET if verbosity >= 2 else logging.ERROR)
    logging.captureWarnings(True)


def adopt_library_loggers(names: Iterable[str] = ("mlflow", "alembic", "uvicorn")) -> None:
    """Take away the handlers and levels that a library set on import; ours are the only ones.

    MLflow 3.17.2 configures its own handlers on stderr in `mlflow/utils/logging_utils.py`.
    """
    for name in list(logging.root.manager.loggerDict):
        if any(name == prefix or name.startswith(prefix + ".") for prefix in names):
            logger = logging.getLogger(name)
            logger.handlers.clear()
            logger.setLevel(logging.NOTSET)
            logger.propagate = True
