"""`/livez` and `/readyz`: is the process alive, can it do its work?"""

import asyncio
import fcntl
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlflow_server.artifacts.probe import PROBE_TIMEOUT_S, probe
from mlflow_server.errors import OpsError
from mlflow_server.server.front import Receive, Scope, Send
from mlflow_server.server.plan import LaunchPlan
from mlflow_server.store.engine import connect
from mlflow_server.store.revision import head_revision, read_revisions

log = logging.getLogger(__name__)

DATABASE_TIMEOUT_S = 2.0
# Probes of several load balancers within this time share one good look. A bad one is not kept: the
# next request finds out whether the database is back.
_DATABASE_CACHE_S = 2.0
ARTIFACT_INTERVAL_S = 30.0


@dataclass(frozen=True)
class CheckResult:
    """How one readiness check stands.

    Args:
        name: `database`, `schema` or `artifacts`.
        ok: Whether it passed.
        detail: Why not, in a few words without hosts, paths or credentials: anybody may ask.
    """

    name: str
    ok: bool
    detail: str = ""


async def livez(scope: Scope, receive: Receive, send: Send) -> None:
    """200 as long as the process answers at all."""
    await send_json(send, 200, {"status": "ok"})


class Readiness:
    """The ASGI app behind `/readyz`: 200 when every check passes, 503 and which one when not.

    Args:
        plan: The launch.
        state_file: Shared by all workers, so that together they probe the artifact destination at
            most every 30 s.
        clock: Seconds since the epoch.
    """

    def __init__(
        self, plan: LaunchPlan, state_file: Path, clock: Callable[[], float] = time.time
    ) -> None:
        self._plan = plan
        self._state_file = state_file
        self._clock = clock
        self._database: tuple[float, tuple[CheckResult, ...]] = (0.0, ())
        self._looking: asyncio.Task[tuple[CheckResult, ...]] | None = None
        self._probing: asyncio.Task[CheckResult] | None = None
        self._last_probe: tuple[float, str] = (float("-inf"), "")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        checks = await self.check()
        ready = all(check.ok for check in checks)
        document = {
            "status": "ok" if ready else "failed",
            "checks": [
                {
                    "name": check.name,
                    "status": "ok" if check.ok else "failed",
                    **({"detail": check.detail} if check.detail else {}),
                }
                for check in checks
            ],
        }
        await send_json(send, 200 if ready else 503, document)

    async def check(self) -> tuple[CheckResult, ...]:
        """All checks, side by side; each look is shared by the requests that wait for it."""
        database, artifacts = await asyncio.gather(self._check_database(), self._check_artifacts())
        return (*database, artifacts)

    async def _check_database(self) -> tuple[CheckResult, ...]:
        at, results = self._database
        if results and 0 <= self._clock() - at < _DATABASE_CACHE_S:
            return results
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(asyncio.to_thread(self._look_at_database))
        try:
            async with asyncio.timeout(DATABASE_TIMEOUT_S):
                results = await asyncio.shield(self._looking)
        except TimeoutError:
            # The thread goes on; the next request joins it instead of starting another.
            return (CheckResult("database", False, f"no answer within {DATABASE_TIMEOUT_S:g} s"),)
        if all(result.ok for result in results):
            self._database = (self._clock(), results)
        return results

    def _look_at_database(self) -> tuple[CheckResult, ...]:
        try:
            with connect(self._plan.store) as connection:
                revisions = read_revisions(connection)
        except OpsError as err:
            log.warning("not ready: %s", err.message)
            return (CheckResult("database", False, "cannot be reached"),)
        except Exception:
            log.exception("not ready: the database check failed")
            return (CheckResult("database", False, "cannot be read"),)
        if revisions != [head_revision()]:
            detail = f"at revision {', '.join(revisions)}, this release needs {head_revision()}"
            return (CheckResult("database", True), CheckResult("schema", False, detail))
        return (CheckResult("database", True), CheckResult("schema", True))

    async def _check_artifacts(self) -> CheckResult:
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(asyncio.to_thread(self._recent_probe))
        return await asyncio.shield(self._probing)

    def _recent_probe(self) -> CheckResult:
        """The last probe of any worker when it is recent, else a new one."""
        try:
            descriptor = os.open(self._state_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            # The folder was cleaned away under a running server: each worker looks for itself.
            return self._probe_unless_recent(self._last_probe)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            result = self._probe_unless_recent(_read_state(os.pread(descriptor, 4096, 0)))
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(self._last_probe).encode(), 0)
            return result
        finally:
            os.close(descriptor)

    def _probe_unless_recent(self, last: tuple[float, str]) -> CheckResult:
        if not 0 <= self._clock() - last[0] < ARTIFACT_INTERVAL_S:
            detail = self._probe()
            last = (self._clock(), detail)
        self._last_probe = last
        return CheckResult("artifacts", not last[1], last[1])

    def _probe(self) -> str:
        try:
            probe(self._plan.destination, os.environ, timeout_s=PROBE_TIMEOUT_S)
        except OpsError as err:
            log.warning("not ready: %s", err.message)
            return "the destination failed a write, read, delete probe"
        return ""


def _read_state(content: bytes) -> tuple[float, str]:
    """When the last probe was, and what it found; nothing readable means long ago."""
    try:
        at, detail = json.loads(content)
        return float(at), str(detail)
    except (ValueError, TypeError):
        return float("-inf"), ""


def state_file_in(folder: Path) -> Path:
    """Where the workers of one server keep the last artifact probe."""
    return folder / "artifact-probe.json"


async def send_json(send: Send, status: int, document: object) -> None:
    """Answer with a small JSON document that no cache keeps."""
    body = json.dumps(document).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
