"""Own the processes: import once, initialise, fork the workers, stop everything.

gunicorn supervises and uvicorn serves; `docs/design/serve.md` has the measurements behind that.
"""

import contextlib
import ctypes
import functools
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, NoReturn

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger as GunicornLogger
from uvicorn_worker import UvicornWorker

from mlflow_server import __version__
from mlflow_server.artifacts.probe import PROBE_TIMEOUT_S, needs_mlflow, probe
from mlflow_server.errors import ExitCode, InternalError, OpsError, UnavailableError
from mlflow_server.server.app import create_app, import_mlflow, open_stores
from mlflow_server.server.guard import check_stopped, was_stopped
from mlflow_server.server.jobs import JobRunner, require_job_execution
from mlflow_server.server.plan import LaunchPlan
from mlflow_server.server.preflight import Preflight, explain_bind
from mlflow_server.server.runtime import RuntimeFolder
from mlflow_server.store.engine import open_sqlite
from mlflow_server.store.revision import head_revision
from mlflow_server.store.schema import INITIALISE_TIMEOUT_S, initialise
from mlflow_server.uris import ArtifactUri, StoreUri

log = logging.getLogger("mlflow_server.server")

# A worker whose event loop stands still for this long is replaced.
_WORKER_TIMEOUT_S = 120
# Between the end of the workers' grace and SIGKILL: time to cancel requests and close connections.
_STOP_MARGIN_S = 3
# So many workers dying this young in a row means that none will live.
_YOUNG_S = 5.0
_YOUNG_DEATHS_PER_WORKER = 3
# Objects made before a collection; collections before one of the next generation.
_GC_THRESHOLDS = (20_000, 20, 20)
_PR_SET_PDEATHSIG = 1
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def run(plan: LaunchPlan, preflight: Preflight, environment: dict[str, str]) -> None:
    """Serve until told to stop.

    Args:
        plan: The launch.
        preflight: Its checks, all passed, with the bound socket.
        environment: For MLflow, from `environment.server_environment`.

    Raises:
        OpsError: The server could not start, or its workers cannot live.
        Stopped: A signal came during start-up.
    """
    os.environ.pop("MLFLOW_WORKSPACE", None)
    os.environ.update(environment)
    runtime = RuntimeFolder()
    try:
        metrics = _make_metrics(plan, runtime) if plan.metrics else None
        started = time.monotonic()
        import_mlflow()
        log.debug("MLflow imported in %.1f s", time.monotonic() - started)
        if plan.job_execution:
            require_job_execution()
        _prepare_stores(plan, preflight)
        app = create_app(plan, runtime.path, metrics)
        _settle_memory()
        check_stopped()
        _Supervisor(plan, preflight.listener, app, metrics).serve()
    finally:
        runtime.remove()


def _make_metrics(plan: LaunchPlan, runtime: RuntimeFolder) -> Any:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(runtime.metrics)
    from mlflow_server.server.metrics import Metrics

    return Metrics(runtime.metrics, __version__, installed_version("mlflow"), head_revision())


def _prepare_stores(plan: LaunchPlan, preflight: Preflight) -> None:
    """Initialise empty stores, probe what only MLflow can probe, make folders, switch to WAL.

    The first two happen in a forked child that has MLflow imported already, so that no engine,
    lock or thread of theirs is inherited by the workers.
    """
    if needs_mlflow(plan.destination):
        _in_child(
            lambda: probe(plan.destination, os.environ, timeout_s=PROBE_TIMEOUT_S),
            PROBE_TIMEOUT_S + 1,
            UnavailableError(f"MLFLOW_ARTIFACTS_DESTINATION: {plan.destination.shown}: no answer"),
        )
    for uri in preflight.empty:
        log.info("initialising the empty store %s", uri.shown)
        finish = _open_once(plan) if uri is plan.store else _nothing
        work = functools.partial(initialise, uri, finish)
        _in_child(work, INITIALISE_TIMEOUT_S, _init_failed(uri))
    _make_destination(plan.destination)
    if plan.wal:
        _switch_to_wal(plan.store)


def _open_once(plan: LaunchPlan) -> Callable[[], None]:
    """Make the experiment `Default` before four workers try to at the same time."""
    return functools.partial(open_stores, plan)


def _nothing() -> None:
    return


def _init_failed(uri: StoreUri) -> OpsError:
    return UnavailableError(
        f"{uri.shown}: the store could not be initialised within {INITIALISE_TIMEOUT_S:.0f} s",
        hint="mlflow-server doctor looks at the store",
    )


def _in_child(work: Callable[[], object], timeout_s: float, too_late: OpsError) -> None:
    """Do work in a forked child and wait for it; its `OpsError` is raised here.

    A child that overstays, or is alive when a signal stops this process, is killed.
    """
    reader, writer = os.pipe()
    child = 0
    try:
        # Held back, so that no signal comes between the fork and knowing the child.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        try:
            child = os.fork()
            if child == 0:
                os.close(reader)
                _child(work, writer)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
        os.close(writer)
        deadline = time.monotonic() + timeout_s
        while True:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                break
            check_stopped()
            if time.monotonic() > deadline:
                raise too_late
            time.sleep(0.01)
        child = 0
        with os.fdopen(reader, "rb", closefd=False) as pipe:
            message = pipe.read().decode("utf-8", errors="replace")
    finally:
        os.close(reader)
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        text, _, hint = message.partition("\0")
        failure = OpsError(text or "start-up failed", hint=hint or None)
        failure.exit_code = ExitCode(code) if code in set(ExitCode) else ExitCode.INTERNAL
        raise failure


def _child(work: Callable[[], object], writer: int) -> NoReturn:
    code = 0
    try:
        for stop_signal in _STOP_SIGNALS:
            signal.signal(stop_signal, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
        work()
    except OpsError as err:
        code = int(err.exit_code)
        os.write(writer, f"{err.message}\0{err.hint or ''}".encode())
    except BaseException as err:
        code = int(ExitCode.INTERNAL)
        log.debug("start-up failed", exc_info=True)
        os.write(writer, f"start-up failed: {type(err).__name__}".encode())
    finally:
        os._exit(code)


def _make_destination(uri: ArtifactUri) -> None:
    if uri.path is not None:
        uri.path.expanduser().mkdir(parents=True, exist_ok=True)


def _switch_to_wal(uri: StoreUri) -> None:
    """Let readers and a writer work side by side. A file that is busy stays as it is."""
    connection = open_sqlite(uri, timeout_s=2)
    try:
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        if mode != "wal":
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            log.info("%s: journal mode is now %s", uri.shown, mode)
    except Exception as err:
        log.warning("%s: could not be switched to WAL: %s", uri.shown, err)
    finally:
        connection.close()


def _settle_memory() -> None:
    """Keep what was imported out of the garbage collector: scanning it would unshare its pages.

    SQLAlchemy makes thousands of short-lived objects per request; with Python's default of 700 the
    collector takes 5 % of a `log_metric` to find nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def threads_of_this_process() -> int:
    """Native threads, those that libraries started included."""
    return sum(1 for _ in Path("/proc/self/task").iterdir())


class _Logger(GunicornLogger):  # type: ignore[misc]
    """gunicorn's and uvicorn's messages go where all others go."""

    def setup(self, cfg: Any) -> None:
        self.error_log = logging.getLogger("mlflow_server.gunicorn")
        self.error_log.setLevel(
            logging.INFO if log.isEnabledFor(logging.DEBUG) else logging.WARNING
        )
        self.access_log = logging.getLogger("mlflow_server.gunicorn.access")
        self.access_log.disabled = True

    def reopen_files(self) -> None:
        return

    def close_on_exec(self) -> None:
        return


class _Worker(UvicornWorker):  # type: ignore[misc]
    """uvicorn with uvloop and httptools, ending when the supervisor does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.spawned_at = time.monotonic()
        self._has_served = False
        uvicorn_log = logging.getLogger("uvicorn.error")
        uvicorn_log.handlers = []
        uvicorn_log.propagate = True
        uvicorn_log.setLevel(self.log.error_log.level)

    def init_signals(self) -> None:
        """As uvicorn's, but without sudden death.

        uvicorn has handlers of its own while it serves, and when it is done it raises the signal
        that stopped it once more; the default action would end the process before cancelled
        requests have cleaned up. The closing of a terminal is the supervisor's business.
        """
        super().init_signals()
        signal.signal(signal.SIGTERM, self._leave)
        signal.signal(signal.SIGINT, self._leave)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _leave(self, _signal: int, _frame: object) -> None:
        if not self._has_served:
            raise SystemExit(0)

    async def callback_notify(self) -> None:
        """Tell the supervisor that the event loop turns; leave when it is gone."""
        self._has_served = True
        self.notify()
        if os.getppid() != self.ppid:
            os.kill(os.getpid(), signal.SIGTERM)


class _Arbiter(Arbiter):  # type: ignore[misc]
    """gunicorn's supervisor, for which Ctrl-C and a closed terminal are as gentle as SIGTERM.

    What a signal would change in gunicorn (reload, upgrade in place, number of workers) is not
    offered: settings are read once, at the start.
    """

    _halting = False

    def handle_int(self) -> None:
        self.handle_term()

    handle_quit = handle_hup = handle_int

    def handle_usr2(self) -> None:
        return

    handle_ttin = handle_ttou = handle_usr2

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        self._halting = True
        super().halt(reason, exit_status)

    def reap_workers(self) -> None:
        """Note which workers have ended; one more that could not start does not stop the stop."""
        try:
            super().reap_workers()
        except HaltServer:
            if not self._halting:
                raise

    def spawn_worker(self) -> Any:
        """Fork with signals held back until the child has its own handlers (`_after_fork`).

        Else a SIGTERM that comes right after the fork ends up in the child's copy of this
        supervisor's queue, and the child lives until it is killed. A worker ends here: on the way
        out through the supervisor's frames, its exit code would become that of a failed start.
        """
        supervisor = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        try:
            return super().spawn_worker()
        except SystemExit as end:
            if os.getpid() == supervisor:
                raise
            logging.shutdown()
            os._exit(end.code if isinstance(end.code, int) else 0)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)


class _Supervisor(BaseApplication):  # type: ignore[misc]
    """gunicorn, told by a plan instead of a file."""

    def __init__(
        self, plan: LaunchPlan, listener: socket.socket, app: Any, metrics: Any | None
    ) -> None:
        self._plan = plan
        self._listener = listener
        self._app = app
        self._metrics = metrics
        self._jobs: JobRunner | None = None
        self._young_deaths = 0
        self._ready_at: float | None = None
        super().__init__()

    def load_config(self) -> None:
        plan = self._plan
        grace = max(1, round(plan.graceful_timeout_s))
        _Worker.CONFIG_KWARGS = {
            "loop": "uvloop",
            "http": "httptools",
            "ws": "none",
            "lifespan": "on",
            "access_log": False,
            "server_header": False,
            "timeout_graceful_shutdown": grace,
        }
        for name, value in {
            "bind": f"fd://{self._listener.detach()}",
            "workers": plan.workers,
            "worker_class": _Worker,
            "preload_app": True,
            "timeout": _WORKER_TIMEOUT_S,
            "graceful_timeout": grace + _STOP_MARGIN_S,
            "keepalive": max(1, round(plan.keep_alive_s)),
            "forwarded_allow_ips": ",".join(plan.trusted_proxies),
            "logger_class": _Logger,
            "proc_name": "mlflow-server",
            "control_socket_disable": True,
            "pre_fork": self._before_fork,
            "post_fork": self._after_fork,
            "child_exit": self._worker_gone,
            "when_ready": self._when_ready,
        }.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return self._app

    def serve(self) -> None:
        """Supervise until a signal; returns after a clean stop."""
        try:
            arbiter = _Arbiter(self)
            arbiter.run()
        except OSError as err:
            raise explain_bind(err, self._plan.host, self._plan.port) from None
        except SystemExit as end:
            if end.code not in (0, None):
                raise self._cannot_live(end.code) from None
        finally:
            if self._jobs is not None:
                self._jobs.stop()

    def _cannot_live(self, code: object) -> OpsError:
        return InternalError(
            f"the workers cannot start (code {code}); the lines above say why",
            hint="mlflow-server doctor checks what they need",
        )

    def _when_ready(self, arbiter: Any) -> None:
        plan = self._plan
        log.info(
            "listening at http://%s:%d%s/ with %d workers; store %s, artifacts %s",
            plan.host,
            plan.port,
            plan.url_prefix,
            plan.workers,
            plan.store.shown,
            plan.destination.shown,
        )
        if was_stopped():
            os.kill(os.getpid(), signal.SIGTERM)
        if plan.job_execution:
            self._jobs = JobRunner.start(plan)

    def _before_fork(self, arbiter: Any, worker: Any) -> None:
        """Only this one thread may exist: any other could hold a lock that the child never gets."""
        threads = threads_of_this_process()
        if threads != 1:
            log.warning("%d threads at the time of a fork: a worker may hang", threads)

    def _after_fork(self, arbiter: Any, worker: Any) -> None:
        for stop_signal in _STOP_SIGNALS:
            signal.signal(stop_signal, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
        _end_with_parent(worker.ppid)

    def _worker_gone(self, arbiter: Any, worker: Any) -> None:
        if self._metrics is not None:
            self._metrics.worker_died(worker.pid)
        if time.monotonic() - worker.spawned_at > _YOUNG_S:
            self._young_deaths = 0
            return
        self._young_deaths += 1
        if self._young_deaths >= _YOUNG_DEATHS_PER_WORKER * self._plan.workers:
            raise HaltServer("workers die as soon as they start", int(ExitCode.INTERNAL))


def _end_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM when the supervisor dies, even by SIGKILL (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(0)
