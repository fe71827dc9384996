"""`ae5 build` and `ae5 release` beside the same by hand, on a stand-in of a cluster.

    python benchmarks/ae5.py                 # everything, about two minutes
    python benchmarks/ae5.py --only release  # what is sent to the platform
    python benchmarks/ae5.py --json

The program `ae5` is the tests' stand-in, or a real one: AE5_CLI. What each number means:
benchmarks/README.md. Exit status: 0 all bars met, 3 some missed, 1 a measurement failed, 2 wrong
usage.
"""

from __future__ import annotations

import json
import sys
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from _command import row_parser, tell, unwind_when_terminated
from _document import begin_document
from _gc_places import file_system
from _programs import Finished, VoidError, run_command, tail
from _results import OURS, Bar, Measurement
from _scenario import Scenario, Way, choose, print_results
from _servers import REPOSITORY
from _session import Recorder

sys.path.insert(0, str(REPOSITORY))

from tests.standins.ae5.cluster import Cluster, cluster
from tests.standins.ae5.program import Program, find_real, install, prepare

BY_HAND = "by hand"
ENDPOINT = "mlflow"
CONDITIONS = (
    "the cluster is the tests' stand-in: pods begin at once, without making an environment",
    "by hand: the archive is git archive of the checkout; the release is one ae5 command for each "
    "step of the guide, without a look at what is there, a wait for readiness or a smoke test",
    "calls: starts of the program ae5, counted by what stands in for it on PATH",
)
ARCHIVE = (
    Measurement("archive", "size of the archive", "kB", {"ae5": Bar(ours_at_most=500)},
                compared_with=BY_HAND),
    Measurement("build", "building it", "s", {"ae5": Bar(ours_at_most=3)}, compared_with=BY_HAND),
)  # fmt: skip
RELEASE = (
    Measurement("release-calls", "first release, calls", "count", {"ae5": Bar(ours_at_most=25)},
                compared_with=BY_HAND),
    Measurement("release", "first release", "s", compared_with=BY_HAND),
    Measurement("again-calls", "second release, calls", "count", {"ae5": Bar(ours_at_most=8)},
                compared_with=None),
    Measurement("again-changes", "second release, changes", "count",
                {"ae5": Bar(ours_at_most=0)}, compared_with=None),
    Measurement("again", "second release", "s", compared_with=None),
)  # fmt: skip


@dataclass
class Bench:
    """What the scenarios measure with.

    Attributes:
        folder: On a disk; everything is in it.
        ae5: The program, and whether it is a real one.
        recorder: Gets the values.
        round_number: From 1.
    """

    folder: Path
    ae5: tuple[Path, bool]
    recorder: Recorder = field(default_factory=Recorder)
    round_number: int = 1

    def new_folder(self) -> Path:
        """One of its own."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    @contextmanager
    def site(self) -> Iterator[tuple[Cluster, Program, Path]]:
        """An empty cluster, how to reach it, and a folder with what a site wants."""
        folder = self.new_folder()
        with cluster(folder / "cluster") as running:
            program = prepare(self.ae5[0], running, folder / "home", is_real=self.ae5[1])
            secrets = folder / "production.env"
            secrets.touch(0o600)
            secrets.write_text(
                "".join(f"{name}={value}\n" for name, value in _values(folder).items())
            )
            (folder / "release.yml").write_text(
                'share: {everyone: true}\nschedules:\n  gc: {cron: "*/10 * * * *"}\n'
                '  backup: {cron: "0 3 * * *"}\n'
            )
            yield running, program, folder


def _values(folder: Path) -> dict[str, str]:
    return {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/data/store.db",
        "MLFLOW_ARTIFACTS_DESTINATION": f"{folder}/data/artifacts",
    }


class Versus(Scenario[Bench]):
    """The same by hand and by ours."""

    def ways(self, bench: Bench) -> Sequence[Way]:
        return [(BY_HAND, partial(self.by_hand, bench)), (OURS, partial(self.ours, bench))]

    @abstractmethod
    def by_hand(self, bench: Bench) -> None:
        """Measure what one would do without."""

    @abstractmethod
    def ours(self, bench: Bench) -> None:
        """Measure ours."""


class Archive(Versus):
    """The archive of a release."""

    def __init__(self) -> None:
        super().__init__("archive", "ae5", ARCHIVE)

    def by_hand(self, bench: Bench) -> None:
        path = bench.new_folder() / "release.tar.gz"
        told = ("git", "-C", str(REPOSITORY), "archive", "--prefix=mlflow/", f"--output={path}")
        self.take(bench, BY_HAND, run_command((*told, "HEAD"), {}), path)

    def ours(self, bench: Bench) -> None:
        folder = bench.new_folder()
        told = ("build", "--from", str(REPOSITORY), "--out", str(folder))
        finished = _ours(told, {})
        (path,) = folder.glob("*.tar.gz")
        self.take(bench, OURS, finished, path)

    def take(self, bench: Bench, who: str, finished: Finished, path: Path) -> None:
        self.keep(bench, "archive", who, path.stat().st_size / 1000, finished)
        self.keep(bench, "build", who, finished.seconds, finished)


class Release(Versus):
    """From nothing to a server that answers, and the same again."""

    def __init__(self) -> None:
        super().__init__("release", "ae5", RELEASE)

    def by_hand(self, bench: Bench) -> None:
        with bench.site() as (running, program, folder):
            archive = _build(folder)
            name = "mlflow.tracking.server"
            first = [
                ("project", "upload", str(archive), "--name", name),
                *(("secret", "add", key, value) for key, value in _values(folder).items()),
                ("project", "deploy", name, "--name", "mlflow", "--endpoint", ENDPOINT,
                 "--command", "TrackingServer", "--private", "--wait"),
                ("deployment", "info", "mlflow"),
                ("deployment", "token", "mlflow"),
            ]  # fmt: skip
            finished = [_by_hand(program, call) for call in first]
            token = finished[-1].stdout.strip()
            rest = [
                ("secret", "add", "MLFLOW_TRACKING_URI", running.url(ENDPOINT)),
                ("secret", "add", "MLFLOW_REGISTRY_URI", running.url(ENDPOINT)),
                ("secret", "add", "MLFLOW_TRACKING_TOKEN", token),
                ("deployment", "collaborator", "add", "mlflow", "everyone", "--group"),
                ("job", "create", name, "--name", "mlflow-gc", "--command", "GarbageCollection",
                 "--schedule", "*/10 * * * *", "--no-run"),
                ("job", "create", name, "--name", "mlflow-backup", "--command", "Backup",
                 "--schedule", "0 3 * * *", "--no-run"),
            ]  # fmt: skip
            finished += [_by_hand(program, call) for call in rest]
            self.keep(bench, "release-calls", BY_HAND, len(program.calls), finished[-1])
            seconds = sum(each.seconds for each in finished)
            self.keep(bench, "release", BY_HAND, seconds, finished[-1])

    def ours(self, bench: Bench) -> None:
        with bench.site() as (running, program, folder):
            archive = _build(folder)
            told = (
                *("release", str(archive), "--release-file", str(folder / "release.yml")),
                *("--values-file", str(folder / "production.env"), "--json"),
            )
            first = _ours(told, program.environment)
            calls, changes = len(program.calls), _changes(running)
            again = _ours(told, program.environment)
            _require_nothing_new(again)
            self.keep(bench, "release-calls", OURS, calls, first)
            self.keep(bench, "release", OURS, first.seconds, first)
            self.keep(bench, "again-calls", OURS, len(program.calls) - calls, again)
            self.keep(bench, "again-changes", OURS, _changes(running) - changes, again)
            self.keep(bench, "again", OURS, again.seconds, again)


def _ours(told: Sequence[str], environment: Mapping[str, str]) -> Finished:
    settings = {"PYTHONPATH": str(REPOSITORY), **environment}
    return run_command((sys.executable, "-m", "mlflow_server", "ae5", *told), settings)


def _by_hand(program: Program, call: Sequence[str]) -> Finished:
    return run_command((str(program.path), *call), dict(program.environment))


def _build(folder: Path) -> Path:
    _ours(("build", "--from", str(REPOSITORY), "--out", str(folder)), {})
    (path,) = folder.glob("*.tar.gz")
    return path


def _changes(running: Cluster) -> int:
    """Calls that changed something; a token that is there is only given out."""
    return sum(
        each.method in ("POST", "PUT", "PATCH", "DELETE")
        and not each.path.startswith("/auth/")
        and not each.path.endswith("/token")
        for each in running.calls
    )


def _require_nothing_new(again: Finished) -> None:
    try:
        items = json.loads(again.stdout)["items"]
    except (ValueError, KeyError):
        raise VoidError(f"no report on stdout: {tail(again.stdout)}") from None
    if new := [item["name"] for item in items if item["facts"]["is_new"]]:
        raise VoidError(f"the second release did something: {', '.join(new)}")


def main() -> int:
    """Measure, print, and give the exit status."""
    arguments = row_parser(__doc__).parse_args()
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    scenarios = choose([Archive(), Release()], arguments.only)
    unwind_when_terminated()
    try:
        with ExitStack() as resources:
            root = tempfile.TemporaryDirectory(prefix="mlflow-bench-", ignore_cleanup_errors=True)
            folder = Path(resources.enter_context(root)).resolve()
            real = find_real()
            ae5 = (real, True) if real else (install(folder / "ae5-env"), False)
            bench = Bench(folder, ae5)
            document = begin_document(
                "benchmarks/ae5", sys.executable, CONDITIONS, {"rounds": rounds}
            )
            document["tools"].append(f"ae5: {'a real one' if real else 'the stand-in'}")
            document["conditions"].append(f"everything on {file_system(folder)}")
            for bench.round_number in range(1, rounds + 1):
                for scenario in scenarios:
                    scenario.run(bench)
    except KeyboardInterrupt:
        tell("interrupted; everything is stopped and removed")
        return 130
    return print_results(document, scenarios, bench.recorder, as_json=arguments.json)


if __name__ == "__main__":
    sys.exit(main())
