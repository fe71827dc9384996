"""The UI in a real browser: opened directly, below a prefix, in a frame of another host.

Chromium sends whatever would leave this machine to a trap (`--proxy-server`; loopback names are
exempt), so that a request to anywhere else is seen, whoever makes it. Names below `.localhost` lead
to this machine; `a.apps.localhost` and `b.apps.localhost` are one site, as the hosts of a platform
are, `a.localhost` and `b.localhost` are two.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    BrowserContext,
    ConsoleMessage,
    FrameLocator,
    Page,
    Request,
    Response,
    expect,
    sync_playwright,
)

from tests.standins.proxy import run_portal, run_proxy
from tests.support.programs import Server, free_port, serve
from tests.support.programs import http as request

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Path (without prefix) -> why a failure there is MLflow's own and harms nobody.
BENIGN = {
    "/ajax-api/2.0/mlflow/users/current": "asks who is logged in; exists with basic auth only",
}
# What Chromium looks up for itself, whatever page is open.
CHROMIUMS_OWN = re.compile(
    r"\S+ (https?://)?(accounts|clients\d*|content-autofill|optimizationguide-pa|update|redirector"
    r"|safebrowsing\w*|android\.clients)\.(google|googleapis|gvt1)\.com[:/]"
)
# Chrome's default. Debian's Chromium blocks the storage of other sites' frames, and MLflow's UI
# stays white without storage.
PREFERENCES = {"profile": {"block_third_party_cookies": False, "cookie_controls_mode": 0}}
PREFIX = "/team/mlflow"
PATIENCE_MS = 30_000


class Trap:
    """A proxy that accepts connections, remembers where they wanted to go, and hangs up."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.wanted: list[str] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                head = connection.recv(4096).decode("latin-1")
                self.wanted.append(head.partition("\r\n")[0])

    def close(self) -> None:
        """End, and free the port."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


@pytest.fixture(scope="module")
def trap() -> Iterator[Trap]:
    """Where everything ends that would leave the machine."""
    trap = Trap()
    yield trap
    trap.close()


@pytest.fixture(scope="module")
def browser(trap: Trap, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    """Chromium; skipped without one, but not in CI."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("Chromium is missing, and CI does not skip the browser tests")
        pytest.skip("no Chromium on this machine")
    profile = tmp_path_factory.mktemp("chromium")
    (profile / "Default").mkdir()
    (profile / "Default" / "Preferences").write_text(json.dumps(PREFERENCES))
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=program,
            args=[*ARGUMENTS, f"--proxy-server=127.0.0.1:{trap.port}"],
            viewport={"width": 1400, "height": 1000},
        )
        yield context
        context.close()


@dataclass
class Visit:
    """One page and what went wrong on it.

    Args:
        page: In a browser context of its own.
        prefix: Path below which the server is published.
        benign: Paths without prefix that may fail.
    """

    page: Page
    prefix: str
    benign: frozenset[str]
    problems: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.problems.append(f"page error: {error}"))
        self.page.on("request", self._request)
        self.page.on("requestfailed", self._failed)
        self.page.on("response", self._response)

    def _is_benign(self, url: str) -> bool:
        return urlsplit(url).path.removeprefix(self.prefix) in self.benign

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not self._is_benign(message.location.get("url", "")):
            self.problems.append(f"console: {message.text}")

    def _request(self, sent: Request) -> None:
        parts = urlsplit(sent.url)
        if parts.scheme in ("http", "https", "ws", "wss"):
            self.hosts.add(parts.hostname or "")

    def _failed(self, sent: Request) -> None:
        # The UI itself cancels look-ups that it no longer needs when the page changes.
        if sent.failure != "net::ERR_ABORTED":
            self.problems.append(f"{sent.method} {sent.url}: {sent.failure}")

    def _response(self, answer: Response) -> None:
        if answer.status >= 400 and not self._is_benign(answer.url):
            self.problems.append(f"{answer.request.method} {answer.url}: {answer.status}")


@contextlib.contextmanager
def visit(
    browser: BrowserContext, trap: Trap, prefix: str = "", benign: Collection[str] = ()
) -> Iterator[Visit]:
    """A page; at its end nothing may have gone wrong, and nothing may have left the machine."""
    escaped = len(trap.wanted)
    page = browser.new_page()
    try:
        visit = Visit(page, prefix, frozenset({*BENIGN, *benign}))
        yield visit
        # Late look-ups count as well.
        page.wait_for_timeout(500)
        assert visit.problems == []
        assert all(is_local(host) for host in visit.hosts), visit.hosts
        assert [line for line in trap.wanted[escaped:] if not CHROMIUMS_OWN.match(line)] == []
    finally:
        page.close()


def is_local(host: str) -> bool:
    """True for names that browsers themselves resolve to this machine."""
    return host == "127.0.0.1" or host == "localhost" or host.endswith(".localhost")


@dataclass(frozen=True)
class Content:
    """What a server holds for a browser to see."""

    experiment_id: str
    run_id: str


def fill(server: Server) -> Content:
    """Log one run with a metric, a parameter and an artifact."""

    def post(path: str, **fields: object) -> dict[str, object]:
        answer = request(
            f"{server.url}/api/2.0/mlflow/{path}",
            method="POST",
            body=json.dumps(fields).encode(),
            headers={"Content-Type": "application/json"},
        )
        assert answer.status == 200, answer.body
        return answer.json()

    experiment_id = str(post("experiments/create", name="seen in a browser")["experiment_id"])
    run = post("runs/create", experiment_id=experiment_id, run_name="the run")["run"]
    run_id = str(run["info"]["run_id"])  # type: ignore[index]
    post("runs/log-metric", run_id=run_id, key="loss", value=0.25, timestamp=1, step=0)
    post("runs/log-parameter", run_id=run_id, key="alpha", value="0.5")
    artifact = f"{experiment_id}/{run_id}/artifacts/notes.txt"
    put = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/{artifact}"
    assert request(put, method="PUT", body=b"read in a browser").status == 200
    return Content(experiment_id, run_id)


def see_experiments(page: Page | FrameLocator) -> None:
    """The list is there, with what was logged."""
    expect(page.get_by_text("seen in a browser").first).to_be_visible(timeout=PATIENCE_MS)
    expect(page.get_by_text("Default").first).to_be_visible(timeout=PATIENCE_MS)


def see_run(page: Page | FrameLocator) -> None:
    """The run's page is there, with metric and parameter."""
    for text in ("the run", "loss", "0.25", "alpha", "0.5"):
        expect(page.get_by_text(text, exact=True).first).to_be_visible(timeout=PATIENCE_MS)


def see_artifact(page: Page | FrameLocator) -> None:
    """The artifact's text is shown."""
    page.get_by_text("notes.txt").first.click()
    expect(page.get_by_text("read in a browser").first).to_be_visible(timeout=PATIENCE_MS)


class Views:
    """The same pages, wherever the server is published."""

    def test_experiments_are_listed(
        self, browser: BrowserContext, trap: Trap, public: str, content: Content
    ) -> None:
        with visit(browser, trap, urlsplit(public).path) as visited:
            visited.page.goto(f"{public}/#/experiments")
            see_experiments(visited.page)

    def test_run_is_shown(
        self, browser: BrowserContext, trap: Trap, public: str, content: Content
    ) -> None:
        with visit(browser, trap, urlsplit(public).path) as visited:
            visited.page.goto(
                f"{public}/#/experiments/{content.experiment_id}/runs/{content.run_id}"
            )
            see_run(visited.page)

    def test_artifact_is_shown(
        self, browser: BrowserContext, trap: Trap, public: str, content: Content
    ) -> None:
        with visit(browser, trap, urlsplit(public).path) as visited:
            visited.page.goto(
                f"{public}/#/experiments/{content.experiment_id}/runs/{content.run_id}/artifacts"
            )
            see_artifact(visited.page)


class TestDirect(Views):
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        with serve(tmp_path_factory.mktemp("browser") / "server") as server:
            yield server

    @pytest.fixture(scope="class")
    @classmethod
    def content(cls, server: Server) -> Content:
        return fill(server)

    @pytest.fixture
    def public(self, server: Server) -> str:
        return server.url

    def test_experiment_can_be_made_by_hand(
        self, browser: BrowserContext, trap: Trap, public: str, content: Content
    ) -> None:
        # The dialog asks whether the name is taken; 404 is the good answer.
        asked = "/ajax-api/2.0/mlflow/experiments/get-by-name"
        with visit(browser, trap, benign=[asked]) as visited:
            page = visited.page
            page.goto(f"{public}/#/experiments")
            see_experiments(page)
            page.get_by_role("button", name="Create", exact=True).first.click()
            page.get_by_placeholder(re.compile("experiment name", re.I)).fill("made by hand")
            page.get_by_role("dialog").get_by_role("button", name="Create").click()
            expect(page.get_by_text("made by hand").first).to_be_visible(timeout=PATIENCE_MS)

    def test_frame_of_another_host_stays_empty(
        self, browser: BrowserContext, trap: Trap, server: Server
    ) -> None:
        with run_portal(f"{server.url}/#/experiments") as port:
            page = browser.new_page()
            refusals: list[str] = []
            page.on("console", lambda message: refusals.append(message.text))
            page.goto(f"http://portal.localhost:{port}/")
            page.wait_for_timeout(1000)
            frame = page.frames[1]
            assert "seen in a browser" not in frame.content()
            assert not frame.url.startswith(server.url)
            assert any("X-Frame-Options" in text or "frame" in text for text in refusals)
            page.close()


class TestPlatform(Views):
    """Below a prefix, behind a proxy that keeps it, in a frame of the platform's portal."""

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        flags = (
            *("--anaconda-project-address", "127.0.0.1", "--anaconda-project-url-prefix", PREFIX),
            *(
                "--anaconda-project-host",
                "mlflow.apps.localhost",
                "--anaconda-project-use-xheaders",
            ),
            "--anaconda-project-iframe-hosts=portal.apps.localhost:* portal.localhost:*",
        )
        port = free_port()
        folder = tmp_path_factory.mktemp("browser") / "server"
        with serve(folder, "--anaconda-project-port", str(port), *flags, port=port) as server:
            yield server

    @pytest.fixture(scope="class")
    @classmethod
    def content(cls, server: Server) -> Content:
        return fill(server)

    @pytest.fixture(scope="class")
    @classmethod
    def public(cls, server: Server) -> Iterator[str]:
        with run_proxy(server.url, prefix=PREFIX) as proxy:
            yield f"http://mlflow.apps.localhost:{proxy.port}{PREFIX}"

    def test_prefix_without_slash_leads_to_the_ui(
        self, browser: BrowserContext, trap: Trap, public: str, content: Content
    ) -> None:
        with visit(browser, trap, PREFIX) as visited:
            visited.page.goto(public)
            assert visited.page.url.startswith(f"{public}/")
            expect(visited.page.get_by_text("Experiments").first).to_be_visible()

    @pytest.mark.parametrize("view", ["experiments", "run", "artifact"])
    @pytest.mark.parametrize(
        "portal", ["portal.apps.localhost", "portal.localhost"], ids=["same site", "other site"]
    )
    def test_works_in_a_frame_of_the_portal(
        self,
        browser: BrowserContext,
        trap: Trap,
        public: str,
        content: Content,
        portal: str,
        view: str,
    ) -> None:
        run = f"experiments/{content.experiment_id}/runs/{content.run_id}"
        path, see = {
            "experiments": ("experiments", see_experiments),
            "run": (run, see_run),
            "artifact": (f"{run}/artifacts", see_artifact),
        }[view]
        with (
            run_portal(f"{public}/#/{path}") as port,
            visit(browser, trap, PREFIX) as visited,
        ):
            visited.page.goto(f"http://{portal}:{port}/")
            see(visited.page.frame_locator("iframe"))

    def test_frame_of_a_host_that_was_not_named_stays_empty(
        self, browser: BrowserContext, trap: Trap, public: str
    ) -> None:
        with run_portal(f"{public}/#/experiments") as port:
            page = browser.new_page()
            refusals: list[str] = []
            page.on("console", lambda message: refusals.append(message.text))
            page.goto(f"http://stranger.localhost:{port}/")
            page.wait_for_timeout(1000)
            assert "seen in a browser" not in page.frames[1].content()
            assert any("frame-ancestors" in text for text in refusals)
            page.close()
