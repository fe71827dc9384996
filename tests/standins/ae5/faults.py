"""What goes wrong on a cluster, on demand: slow or bad answers, cut connections, broken pods."""

from __future__ import annotations

import enum
import fnmatch
import threading
from dataclasses import dataclass, field


class Cut(enum.Enum):
    """Where a connection breaks off."""

    REQUEST = "in the middle of the request's body; nothing is done"
    BEFORE_ANSWER = "when all is done, before the first byte of the answer"
    ANSWER = "when all is done, in the middle of the answer's body"


@dataclass
class Fault:
    """One thing that goes wrong.

    Args:
        method: Of the calls it concerns; `*` for any.
        path: fnmatch pattern of their path without the query; calls to a deployment have its
            endpoint in front (`mlflow/api/2.0/*`).
        times: How many calls it hits; None for all.
        after: So many calls pass before the first is hit.
        slow_s: Wait so long first.
        status: Answer this instead of doing anything.
        is_expired: The session of the caller, and of everybody else, has ended.
        cut: Break the connection off.
        hits: How many calls were hit so far.
    """

    method: str = "*"
    path: str = "*"
    times: int | None = 1
    after: int = 0
    slow_s: float = 0.0
    status: int | None = None
    is_expired: bool = False
    cut: Cut | None = None
    hits: int = 0

    def concerns(self, method: str, path: str) -> bool:
        """Whether this call is one of those; says nothing about `times` and `after`."""
        return self.method in ("*", method) and fnmatch.fnmatchcase(path, self.path)


@dataclass
class Faults:
    """What will go wrong.

    Args:
        rules: In the order in which they were added; the first that fits counts.
        failing_runs: So many of the next runs end with status 1 without doing anything.
        failing_deployments: So many of the next deployments fail to run.
        stalled_deployments: So many of the next deployments stay in state "starting".
    """

    rules: list[Fault] = field(default_factory=list)
    failing_runs: int = 0
    failing_deployments: int = 0
    stalled_deployments: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, fault: Fault) -> Fault:
        """From now on this goes wrong too; returns it, to look at `hits`."""
        with self._lock:
            self.rules.append(fault)
        return fault

    def slow(
        self, seconds: float, method: str = "*", path: str = "*", times: int | None = 1
    ) -> Fault:
        """Answer late."""
        return self.add(Fault(method, path, times, slow_s=seconds))

    def answer(
        self,
        status: int,
        method: str = "*",
        path: str = "*",
        times: int | None = 1,
        after: int = 0,
    ) -> Fault:
        """Answer an error."""
        return self.add(Fault(method, path, times, after, status=status))

    def expire(self, method: str = "*", path: str = "*", after: int = 0) -> Fault:
        """End all sessions when such a call comes."""
        return self.add(Fault(method, path, after=after, is_expired=True))

    def cut(
        self,
        where: Cut,
        method: str = "*",
        path: str = "*",
        times: int | None = 1,
        after: int = 0,
    ) -> Fault:
        """Break the connection off."""
        return self.add(Fault(method, path, times, after, cut=where))

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        with self._lock:
            self.rules.clear()
            self.failing_runs = self.failing_deployments = self.stalled_deployments = 0

    def take(self, method: str, path: str) -> Fault | None:
        """The fault of one call, if any; counts it."""
        with self._lock:
            for fault in self.rules:
                if not fault.concerns(method, path):
                    continue
                if fault.after > 0:
                    fault.after -= 1
                elif fault.times is None or fault.hits < fault.times:
                    fault.hits += 1
                    return fault
        return None

    def take_pod(self, kind: str) -> bool:
        """Whether the next pod is to have this fault (the name of a counter); counts it."""
        with self._lock:
            left = getattr(self, kind)
            setattr(self, kind, max(0, left - 1))
        return bool(left)
