"""A server of ours, asked through the platform's gateway with its token."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow_server.errors import UnavailableError

_TIMEOUT_S = 15.0


@dataclass(frozen=True)
class Answer:
    """What an address answers.

    Args:
        status: Of HTTP.
        content: The body.
        is_redirect: It leads elsewhere.
    """

    status: int
    content: bytes
    is_redirect: bool = False

    @property
    def document(self) -> dict[str, Any]:
        """The JSON object in the body; an empty one when it is none."""
        try:
            found = json.loads(self.content)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def refusal(self) -> str | None:
        """What the gateway says in place of the server, if it does."""
        if self.is_redirect:
            return "the platform asks to sign in: the token is not accepted"
        if self.status in (401, 403):
            return f"the platform does not accept the token ({self.status})"
        return None


@dataclass(frozen=True)
class Health:
    """What a server says of itself.

    Args:
        is_ready: It answers, and all that it needs is there.
        detail: What it, or the gateway, says instead; nobody's secret.
        checks: Names of the server's checks, and whether each passed.
    """

    is_ready: bool
    detail: str
    checks: Mapping[str, bool] | None = None


class Endpoint:
    """An address of the platform.

    Args:
        url: `https://ENDPOINT.HOST`.
        token: For its gateway; empty for none.
        environ: Says which certificates to trust.
    """

    def __init__(self, url: str, token: str, environ: Mapping[str, str]) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._verify = _trusted(environ)

    def health(self) -> Health:
        """Ask once whether the server is ready."""
        import requests

        try:
            answer = self._send("GET", "/readyz")
        except requests.RequestException as err:
            return Health(False, f"it cannot be reached ({type(err).__name__})")
        if answer.refusal:
            return Health(False, answer.refusal)
        checks = _checks(answer)
        if answer.status == 200:
            return Health(True, "ready", checks)
        failed = ", ".join(name for name, is_good in (checks or {}).items() if not is_good)
        return Health(
            False,
            f"it answers {answer.status}: {failed or 'no answer of this server'}",
            checks,
        )

    def ask(self, method: str, path: str, **request: Any) -> Answer:
        """Make one request; what the server answers is the caller's business.

        Args:
            method: In capital letters.
            path: With a leading slash.
            request: For `requests`.

        Raises:
            UnavailableError: There is no answer, or the certificate is not trusted.
        """
        import requests

        try:
            return self._send(method, path, **request)
        except requests.RequestException as err:
            raise UnavailableError(
                f"{self.url}: cannot be reached ({type(err).__name__})",
                hint="mlflow-server ae5 status",
            ) from None

    def _send(self, method: str, path: str, **request: Any) -> Answer:
        import requests

        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            with requests.Session() as session:
                session.verify = self._verify
                session.auth = lambda request: request  # or a .netrc would replace the token
                answer = session.request(
                    method, f"{self.url}{path}", headers=headers, timeout=_TIMEOUT_S,
                    allow_redirects=False, **request,
                )  # fmt: skip
                return Answer(answer.status_code, answer.content, answer.is_redirect)
        except requests.exceptions.SSLError:
            raise UnavailableError(
                f"{self.url}: its certificate is not trusted",
                hint="name the platform's: REQUESTS_CA_BUNDLE; or AE5_TLS_VERIFY=false",
            ) from None


def _checks(answer: Answer) -> dict[str, bool] | None:
    try:
        checks = answer.document["checks"]
        return {str(each["name"]): each.get("status") == "ok" for each in checks}
    except (LookupError, TypeError, AttributeError):
        return None


def _trusted(environ: Mapping[str, str]) -> str | bool:
    """A bundle that is named, as for `ae5`; else what AE5_TLS_VERIFY says, and without it: yes."""
    bundle = environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE")
    if bundle:
        return bundle
    return environ.get("AE5_TLS_VERIFY", "").strip().lower() not in ("false", "0")
