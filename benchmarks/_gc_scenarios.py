"""All that `gc.py` measures, and which bars `mlflow gc` sets."""

from __future__ import annotations

from _databases import ENGINES
from _gc_bench import Bench, Effort
from _gc_limits import BesideServer, Growth, Memory, Nothing
from _gc_versus import OnDisk, OnS3, SideBySide, ThroughProxy
from _results import Bar
from _scenario import Scenario


def make_scenarios(effort: Effort) -> list[Scenario[Bench]]:
    """All of them, in the order of the table."""
    postgresql = {"": Bar(at_least=14, aim=16)}
    sqlite = {"-offline": Bar(at_least=7, aim=8.5), "": Bar(at_least=4)}
    return [
        *(
            SideBySide(f"{engine}-{size}", engine, size, f"{size:,} runs, tmpfs", bars)
            for engine, bars in (("postgresql", postgresql), ("sqlite", sqlite))
            for size in effort.sizes
        ),
        ThroughProxy(
            "proxy",
            "postgresql",
            effort.proxy,
            f"{effort.proxy:,} runs, artifact proxy",
            {"": Bar(at_least=15)},
        ),
        OnS3("s3", "postgresql", effort.s3, f"{effort.s3:,} runs, S3", {"": Bar(at_least=5)}),
        OnDisk(
            "disk",
            "postgresql",
            effort.disk,
            f"{effort.disk:,} runs, disk",
            {"": Bar(at_least=3, aim=3.5)},
        ),
        *(Memory(engine, effort.memory) for engine in ENGINES),
        *(Nothing(engine) for engine in ENGINES),
        *(BesideServer(engine, effort.beside) for engine in ENGINES),
        *(Growth(engine, effort.growth) for engine in ENGINES),
    ]
