"""What is kept on disk between two calls: cookies of users, tokens of administrators.

Source: `--help-login` of ae5-tools 0.7.3 and what it leaves in `AE5_TOOLS_CONFIG_DIR`.
"""

from __future__ import annotations

import datetime
import json
import os
from http.cookiejar import LWPCookieJar
from pathlib import Path
from typing import TypeAlias

FOLDER = Path(os.environ.get("AE5_TOOLS_CONFIG_DIR") or "~/.ae5").expanduser()
_FORMAT = "%Y-%m-%d %H:%M:%S"

# Host, user, administrator, last used, end of the session.
Account: TypeAlias = tuple[str, str, bool, str, str]


def file_of(kind: str, user: str, host: str) -> str:
    """Where a session is kept.

    No `Path`, which would forget the slash at the end of a wrong host: it makes a folder of the
    file, in which nothing can be kept.
    """
    return f"{FOLDER}/{kind}/{user}@{host}"


def is_there(file: str) -> bool:
    """Whether there is something of that name."""
    return Path(file).is_dir() if file.endswith("/") else Path(file).exists()


def make_folder(file: str) -> None:
    """Make the folder that a file is in."""
    Path(file.rpartition("/")[0]).mkdir(mode=0o700, parents=True, exist_ok=True)


def _files(kind: str) -> list[Path]:
    """Those of one kind, the last used first."""
    folder = FOLDER / kind
    files = folder.iterdir() if folder.is_dir() else ()
    fitting = [
        each for each in files if not each.name.startswith(".") and each.name.count("@") == 1
    ]
    return sorted(fitting, key=lambda each: each.stat().st_mtime, reverse=True)


def find(host: str | None, user: str | None, *, admin: bool) -> list[tuple[str, str]]:
    """Host and user of the saved sessions that fit, the last used first."""
    pairs = [path.name.rpartition("@")[::2] for path in _files("tokens" if admin else "cookies")]
    return [(h, u) for u, h in pairs if host in (None, h) and user in (None, u)]


def _text(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment).strftime(_FORMAT)  # noqa: DTZ006 - for people


def list_accounts() -> list[Account]:
    """All saved sessions. A file without cookies, as a sign-out leaves it, is an error."""
    found: list[Account] = []
    for path in _files("cookies"):
        user, _, host = path.name.rpartition("@")
        jar = LWPCookieJar(str(path))
        jar.load()
        ends = min(cookie.expires or 0 for cookie in jar)
        is_over = any(cookie.is_expired() for cookie in jar)
        found.append(
            (host, user, False, _text(path.stat().st_mtime), "expired" if is_over else _text(ends))
        )
    for path in _files("tokens"):
        user, _, host = path.name.rpartition("@")
        changed = path.stat().st_mtime
        told = json.loads(path.read_text() or "{}")
        end = "unknown"
        if "refresh_expires_in" in told:
            until = changed + int(told["refresh_expires_in"])
            now = datetime.datetime.now(datetime.UTC).timestamp()
            end = "expired" if until < now else _text(until)
        found.append((host, user, True, _text(changed), end))
    return found


# Made on import, as the real package does.
FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
