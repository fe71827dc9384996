"""All that `backup.py` measures."""

from __future__ import annotations

from _backup_bench import Bench, Effort
from _backup_files import LARGE, SMALL, Files
from _backup_memory import Memory
from _backup_migrate import Migrate
from _backup_tables import Restore, Tables
from _databases import ENGINES
from _scenario import Scenario


def make_scenarios(effort: Effort) -> list[Scenario[Bench]]:
    """All of them, in the order of the table."""
    return [
        *(Tables(engine, effort.runs) for engine in ENGINES),
        Restore(effort.runs),
        *(Files("files", engine, SMALL, effort.runs) for engine in ENGINES),
        *(Files("models", engine, LARGE, effort.runs) for engine in ENGINES),
        Migrate(effort.runs, effort.peer_runs),
        *(Memory(engine, effort.memory_rows) for engine in ENGINES),
    ]
