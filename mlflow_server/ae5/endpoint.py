"""A server of ours, asked through the platform's gateway with its token."""

from collections.abc import Mapping
from dataclasses import dataclass

from mlflow_server.errors import UnavailableError

_TIMEOUT_S = 15.0


@dataclass(frozen=True)
class Health:
    """What a server says of itself.

    Args:
        is_ready: It answers, and all that it needs is there.
        detail: What it, or the gateway, says instead; nobody's secret.
    """

    is_ready: bool
    detail: str


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

        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            with requests.Session() as session:
                session.verify = self._verify
                session.auth = lambda request: request  # or a .netrc would replace the token
                answer = session.get(
                    f"{self.url}/readyz", headers=headers, timeout=_TIMEOUT_S, allow_redirects=False
                )
        except requests.exceptions.SSLError:
            raise UnavailableError(
                f"{self.url}: its certificate is not trusted",
                hint="name the platform's: REQUESTS_CA_BUNDLE; or AE5_TLS_VERIFY=false",
            ) from None
        except requests.RequestException as err:
            return Health(False, f"it cannot be reached ({type(err).__name__})")
        if answer.status_code == 200:
            return Health(True, "ready")
        if answer.is_redirect:
            return Health(False, "the platform asks to sign in: the token is not accepted")
        if answer.status_code in (401, 403):
            return Health(False, f"the platform does not accept the token ({answer.status_code})")
        return Health(False, f"it answers {answer.status_code}: {_failed_checks(answer.text)}")


def _failed_checks(text: str) -> str:
    import json

    try:
        checks = json.loads(text)["checks"]
        return ", ".join(str(each["name"]) for each in checks if each.get("status") != "ok")
    except (ValueError, LookupError, TypeError, AttributeError):
        return "no answer of this server"


def _trusted(environ: Mapping[str, str]) -> str | bool:
    """A bundle that is named, as for `ae5`; else what AE5_TLS_VERIFY says, and without it: yes."""
    bundle = environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE")
    if bundle:
        return bundle
    return environ.get("AE5_TLS_VERIFY", "").strip().lower() not in ("false", "0")
