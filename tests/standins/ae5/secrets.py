"""Secrets of users, and the folders in which their pods find them.

AE5 mounts them as Kubernetes mounts secrets (assumed): each name is a link into the hidden folder
`..data`, which is a link to a folder of a moment, so that all of them change at once. A mount of
the real kind lies at `/var/run/secrets/user_credentials`; ours is told to processes as
`TRACKING_SERVER_SECRETS_DIR`.
"""

from __future__ import annotations

import re
import shutil
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.standins.ae5.wire import Answer, Call, Refusal

if TYPE_CHECKING:
    from tests.standins.ae5.cluster import Cluster

_NAME = re.compile(r"[A-Za-z0-9_]+")


@dataclass
class Secrets:
    """The secrets of all users.

    Args:
        folder: Holds a folder for each user.
        is_late: A change reaches the folders only with `mount`, as on a cluster it takes minutes.
    """

    folder: Path
    is_late: bool = False
    _values: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def of(self, user: str) -> dict[str, str]:
        """Names and values of one user."""
        with self._lock:
            return dict(self._values.get(user, {}))

    def set(self, user: str, name: str, value: str | None) -> None:
        """Add, replace or (None) remove one."""
        with self._lock:
            values = self._values.setdefault(user, {})
            if value is None:
                values.pop(name, None)
            else:
                values[name] = value
        if not self.is_late:
            self.mount(user)

    def mount(self, user: str) -> Path:
        """The folder of a user's secrets, as they are now."""
        with self._lock:
            folder = self.folder / user
            folder.mkdir(parents=True, exist_ok=True)
            link = folder / "..data"
            before = folder / link.readlink() if link.is_symlink() else None
            moment = folder / f"..{uuid.uuid4().hex}"
            moment.mkdir(mode=0o700)
            values = self.of(user)
            for name, value in values.items():
                (moment / name).write_text(value, "utf-8")
            fresh = folder / "..data_tmp"
            fresh.symlink_to(moment.name)
            fresh.replace(link)
            for name in values:
                if not (folder / name).is_symlink():
                    (folder / name).symlink_to(f"..data/{name}")
            for entry in folder.iterdir():
                if not entry.name.startswith("..") and entry.name not in values:
                    entry.unlink()
            if before is not None:
                shutil.rmtree(before)
            return folder


def list_secrets(cluster: Cluster, call: Call, user: str) -> Answer:
    """Their names."""
    return Answer.of({"data": sorted(cluster.secrets.of(user))})


def set_secret(cluster: Cluster, call: Call, user: str) -> Answer:
    """Add or replace one."""
    told = cluster.read_json(call, {"key": str, "value": str})
    if not _NAME.fullmatch(told["key"]):
        raise Refusal(400, "a name has letters, digits and underscores", complaint=True)
    cluster.secrets.set(user, told["key"], told["value"])
    return Answer.of(None)


def delete_secret(cluster: Cluster, call: Call, user: str, key: str) -> Answer:
    """Remove one."""
    if key not in cluster.secrets.of(user):
        raise Refusal(404, "there is no such secret")
    cluster.secrets.set(user, key, None)
    return Answer.of(None)
