"""HTTP with a cluster: TLS, retries, sign-in, saved sessions."""

from __future__ import annotations

import contextlib
import getpass
import os
import sys
import time
from collections.abc import Callable
from http.cookiejar import LWPCookieJar
from typing import Any
from urllib.parse import urljoin

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from . import saved
from .errors import AEException, AEUnexpectedResponseError

REFUSED = "Invalid username or password."
FORM = '<form id="kc-form-login"'
# Tests may not want to wait as long as the real program does.
_PACE = float(os.environ.get("AE5_STANDIN_PACE") or 1)


def pause(seconds: float) -> None:
    """Wait before asking again."""
    time.sleep(seconds * _PACE)


def _show(response: requests.Response, *_: object, **__: object) -> None:
    request = response.request
    print(request.method, request.url, response.status_code, file=sys.stderr)


def _http_session() -> requests.Session:
    """Every method is tried again three times after 403, 502, 503 and 504: also POST."""
    session = requests.Session()
    session.cookies = LWPCookieJar()  # type: ignore[assignment]
    retries = Retry(
        total=3,
        redirect=30,
        backoff_factor=0.1,
        status_forcelist=[403, 502, 503, 504],
        allowed_methods=["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"],
    )
    session.mount("https://", HTTPAdapter(max_retries=retries))
    if os.environ.get("API_DEBUG"):
        session.hooks["response"].append(_show)
    _set_tls(session)
    return session


def _set_tls(session: requests.Session) -> None:
    """Certificates are not checked unless the environment says so."""
    words = {"true": True, "1": True, "false": False, "0": False}
    session.verify = words.get(os.environ.get("AE5_TLS_VERIFY", "").lower(), False)
    if os.environ.get("REQUESTS_CA_BUNDLE"):
        session.verify = True
    if client := os.environ.get("AE5_CLIENT_CERT_PATH"):
        session.verify, session.cert = True, client
    if not session.verify:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)


class AESessionBase:
    """What users and administrators have in common.

    Args:
        hostname: `name[:port]`.
        username: Whose session it is.
        password: Asked for when it is needed and None; for a user also an administrator's session.
        prefix: Path below which all calls are that do not begin with a slash.
        persist: Load the session from disk, and save it there.

    Raises:
        ValueError: Host or user is empty.
    """

    kind = ""

    def __init__(
        self, hostname: str, username: str, password: Any, prefix: str, persist: bool
    ) -> None:
        if not hostname or not username:
            raise ValueError("Must supply hostname and username")
        self.hostname, self.username, self.password = hostname, username, password
        self.persist = persist
        self.base = f"https://{hostname}/{prefix}/"
        self.file = saved.file_of(self.kind, username, hostname)
        self.session = _http_session()
        self.add_headers()
        if persist:
            self.load()
        self.connected = self.is_signed_in()
        if self.connected:
            self.set_header()

    # What the two kinds do differently.
    load: Callable[[], None]
    save: Callable[[], None]
    sign_in: Callable[[Any], None]
    sign_out: Callable[[], None]
    is_signed_in: Callable[[], bool]
    set_header: Callable[[], None]
    tell: Callable[..., None] = staticmethod(
        lambda text, nl=True: print(text, file=sys.stderr, end="\n" if nl else "", flush=True)
    )

    def add_headers(self) -> None:
        """Those that a gateway in front of the cluster asks for."""
        names = ("CF_ACCESS_CLIENT_ID", "CF_ACCESS_CLIENT_SECRET")
        if all(os.environ.get(name) for name in names):
            self.session.headers["CF-Access-Client-Id"] = os.environ[names[0]]
            self.session.headers["CF-Access-Client-Secret"] = os.environ[names[1]]

    def __del__(self) -> None:
        # Where nothing is kept, nobody could end the session later. Not while Python ends itself.
        is_kept = getattr(self, "persist", True)
        if is_kept or sys.is_finalizing():
            return
        with contextlib.suppress(Exception):
            if self.connected:
                self.disconnect()

    def authorize(self) -> None:
        """Sign in, asking for a password as often as it takes."""
        asks, was_right = self.password is None, True
        while True:
            password = self._ask(was_right) if asks else self.password
            self.sign_in(password)
            if self.is_signed_in():
                break
            if not asks:
                raise AEException(REFUSED)
            was_right = False
        self.connected = True
        self.set_header()
        if self.persist:
            self.save()

    def _ask(self, was_right: bool) -> str:
        if not was_right:
            self.tell("Invalid username or password; please try again.")
        while True:
            self.tell(f"Password for {self.username}@{self.hostname}: ", nl=False)
            if password := getpass.getpass(""):
                return password
            self.tell("Must supply a password.")

    def disconnect(self) -> None:
        """Sign out."""
        self.sign_out()
        self.session.headers.clear()
        self.session.cookies.clear()
        if self.persist:
            self.save()
        self.connected = False

    def is_form(self, response: requests.Response) -> bool:
        """Whether this is the sign-in page."""
        return False

    def send(
        self, method: str, path: str, subdomain: str = "", form: str = "", **request: Any
    ) -> Any:
        """One call; redirects are followed as GET, an ended session leads to a new sign-in.

        Args:
            method: In small letters.
            path: Below the prefix, or with a leading slash.
            subdomain: An endpoint instead of the platform.
            form: `blob` or `text`; otherwise JSON is read when it is JSON.
            request: For `requests`.

        Raises:
            AEUnexpectedResponseError: No connection, or 400 and above.
        """
        base = self.base.replace("//", f"//{subdomain}.") if subdomain else self.base
        url, moved, may_sign_in = urljoin(base, path), False, True
        if not self.connected:
            self.authorize()
            may_sign_in = self.password is None
        while True:
            try:
                response = self.session.request(method, url, allow_redirects=False, **request)
            except requests.exceptions.ConnectionError as err:
                raise AEUnexpectedResponseError(
                    "Unable to connect", method, url, **request
                ) from err
            except requests.exceptions.Timeout as err:
                raise AEUnexpectedResponseError(
                    "Connection timeout", method, url, **request
                ) from err
            if 300 <= response.status_code < 400:
                target = urljoin(url, response.headers["location"].rstrip())
                moved = moved or target != url
                url, method = target, "get"
            elif may_sign_in and (response.status_code == 401 or self.is_form(response)):
                self.authorize()
                may_sign_in = self.password is None
            elif response.status_code >= 400:
                raise AEUnexpectedResponseError(response, method, url, **request)
            else:
                break
        if moved and self.persist:
            self.save()
        return self._read(response, form)

    @staticmethod
    def _read(response: requests.Response, form: str) -> Any:
        if not response.content:
            return None
        if form == "blob":
            return response.content
        if form == "text" or "json" not in response.headers["content-type"]:
            return response.text
        return response.json()
