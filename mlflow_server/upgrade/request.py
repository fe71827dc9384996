"""What `upgrade` is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow_server.uris import StoreUri


@dataclass(frozen=True)
class Request:
    """What to upgrade.

    Args:
        databases: By what they are: `backend`, and where there are any `registry` and `auth`.
        backups: Where backups go; None for beside a SQLite file.
        is_online: Others may be connected to PostgreSQL.
        wait_s: How long to wait for the lock, seconds.
    """

    databases: Mapping[str, StoreUri]
    backups: Path | None = None
    is_online: bool = False
    wait_s: float = 0.0
