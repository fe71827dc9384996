"""What each revision of MLflow's schema is: the release that brought it, and what it goes through.

`revisions.json` is written by `scripts/revisions`.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow_server.uris import Dialect

_FILE = Path(__file__).with_name("revisions.json")


@dataclass(frozen=True)
class Revision:
    """A revision.

    Args:
        id: As `alembic_version` has it.
        release: The first release of MLflow that has it.
        title: What it says of itself.
        tables: Tables of which it goes through all rows, by dialect.
    """

    id: str
    release: str
    title: str
    tables: Mapping[Dialect, tuple[str, ...]]


@functools.cache
def known_revisions() -> Mapping[str, Revision]:
    """All of them by id, oldest first."""
    return {
        each["revision"]: Revision(
            each["revision"],
            each["release"],
            each["title"],
            {
                Dialect.SQLITE: tuple(each["sqlite"]),
                Dialect.POSTGRESQL: tuple(each["postgresql"]),
                # What PostgreSQL has to go through, MySQL has, too.
                Dialect.MYSQL: tuple(each["postgresql"]),
            },
        )
        for each in json.loads(_FILE.read_text("utf-8"))
    }
