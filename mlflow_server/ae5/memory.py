"""What this machine remembers of a site, so that a release repeats nothing.

The platform gives no secret back; so whether one is as it should be is known from a fingerprint.
Without this file everything works, and some things are done once more.
"""

import hashlib
import hmac
import json
import logging
import os
import secrets
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from mlflow_server.ae5.sharing import Reader
from mlflow_server.ae5.written import write_whole

_FORMAT = 1
_MOST_PROJECTS = 10
# Of scrypt: 16 MiB and some 50 ms for each guess.
_COST = {"n": 2**14, "r": 8, "p": 1}

log = logging.getLogger(__name__)


def memory_of(environ: Mapping[str, str], project: str, endpoint: str) -> "Memory":
    """The memory of a site: platform, account, project and endpoint.

    Args:
        environ: Has AE5_HOSTNAME, AE5_USERNAME and XDG_STATE_HOME, perhaps.
        project: Its name.
        endpoint: Its name.
    """
    told = environ.get("XDG_STATE_HOME") or f"{environ.get('HOME') or Path.home()}/.local/state"
    who = [environ.get("AE5_HOSTNAME", ""), environ.get("AE5_USERNAME", ""), project, endpoint]
    name = hashlib.sha256(json.dumps(who).encode()).hexdigest()[:16]
    return Memory(Path(told) / "mlflow-tracking-server" / "ae5" / f"{name}.json")


class Memory:
    """A file that only its owner may read, with nothing in it that anybody must not know.

    What is known of secrets belongs to the projects of a site, one after the other: their ids are
    unique over all platforms, so that another platform's secrets are not taken for these.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = self._read()

    def knows(self, projects: Collection[str], name: str, value: str) -> bool:
        """Whether a secret has been set to this value, for one of these projects (ids)."""
        known = str(self._known["secrets"].get(name, ""))
        return not self._is_foreign(projects) and hmac.compare_digest(
            known, self._fingerprint(name, value)
        )

    def note(self, projects: Collection[str], values: Mapping[str, str]) -> None:
        """Secrets have been set, for the projects of one site (ids)."""
        if self._is_foreign(projects):
            self._known |= {"projects": [], "secrets": {}}
        self._add(projects)
        for name, value in values.items():
            self._known["secrets"][name] = self._fingerprint(name, value)
        self._write()

    def follow(self, before: str, after: str) -> None:
        """A project (id) takes the place of another one of the same account."""
        if not self._is_foreign([before]):
            self._add([after])
            self._write()

    @property
    def outdated(self) -> str:
        """The deployment (id) that was started before secrets were changed, if that is known."""
        return str(self._known["outdated"])

    def outdate(self, deployment: str) -> None:
        """Secrets are changed that a deployment (id) has read already."""
        self._keep("outdated", deployment)

    @property
    def carried(self) -> list[Reader]:
        """Who could open a server that was stopped, and is to be able to again."""
        return [Reader(str(name), bool(is_group)) for name, is_group in self._known["readers"]]

    def carry(self, readers: Iterable[Reader]) -> None:
        """Remember who could open a server, before it is stopped; nobody, when they can again."""
        self._keep("readers", [[each.name, each.is_group] for each in readers])

    @property
    def going_back(self) -> list[str]:
        """The releases that a rollback comes from and goes to, when one is under way."""
        return [str(tag) for tag in self._known["rollback"]]

    def go_back(self, *tags: str) -> None:
        """A rollback begins; without tags it has ended."""
        self._keep("rollback", list(tags))

    def _keep(self, name: str, value: Any) -> None:
        if self._known[name] != value:
            self._known[name] = value
            self._write()

    def _is_foreign(self, projects: Collection[str]) -> bool:
        return not {*projects} & {*self._known["projects"]}

    def _add(self, projects: Collection[str]) -> None:
        known = dict.fromkeys([*self._known["projects"], *projects])
        self._known["projects"] = [*known][-_MOST_PROJECTS:]

    def _fingerprint(self, name: str, value: str) -> str:
        salt = bytes.fromhex(self._known["salt"]) + name.encode()
        return hashlib.scrypt(value.encode(), salt=salt, dklen=32, **_COST).hex()

    def _read(self) -> dict[str, Any]:
        empty = {
            "format": _FORMAT, "salt": secrets.token_hex(16), "projects": [], "secrets": {},
            "outdated": "", "readers": [], "rollback": [],
        }  # fmt: skip
        try:
            found = json.loads(self._path.read_bytes())
            if found["format"] != _FORMAT or not {*empty} <= {*found}:
                raise ValueError(self._path)
        except FileNotFoundError:
            return empty
        except (OSError, ValueError, TypeError, KeyError) as err:
            log.warning(
                "%s: is not understood, and written anew: %s", self._path, type(err).__name__
            )
            return empty
        return dict(found)

    def _write(self) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self._path, json.dumps(self._known, indent=2).encode() + b"\n", 0o600)
        except OSError as err:
            log.warning(
                "%s: cannot be written, so that the next release does some things once more: %s",
                self._path, os.strerror(err.errno or 0),
            )  # fmt: skip
