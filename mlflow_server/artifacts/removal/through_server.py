"""Remove artifacts through a tracking server, where only that knows the destination."""

import base64
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, unquote, urlparse, urlsplit, urlunparse

from mlflow_server.artifacts.removal.freed import Found, Freed
from mlflow_server.artifacts.removal.place import Place
from mlflow_server.errors import (
    BadInputError,
    OpsError,
    PermissionDeniedError,
    SettingsError,
    UnavailableError,
)
from mlflow_server.uris import mask_uri

_SETTING = "MLFLOW_TRACKING_URI"
_TOKEN = "MLFLOW_TRACKING_TOKEN"  # noqa: S105
_PASSWORD = "MLFLOW_TRACKING_PASSWORD"  # noqa: S105
_CERTIFICATE = "MLFLOW_TRACKING_SERVER_CERT_PATH"
_API = "/api/2.0/mlflow-artifacts/artifacts"
_CONTROL = re.compile("[\x00-\x1f\x7f]")
# What servers of MLflow 3.17.2 answer: without workspaces; when Azure has nothing to delete.
_WORKSPACES_ARE_OFF = "FEATURE_DISABLED"
_NOTHING = "No such file or directory"
_THREADS = 8
_CONNECT_TIMEOUT_S = 5
# Without a byte: a server may need long to delete a large folder.
_READ_TIMEOUT_S = 120
_ATTEMPTS = 5
# How many folders of a place are looked into, to tell what removing it frees.
_FOLDERS_COUNTED = 16


class ThroughServerRemover:
    """Removes places of the destination of a tracking server, with the user's own permissions.

    A server tells no times, nor whether a folder without files is there: so empty folders stay.

    Args:
        host: That a location names; empty for the server of MLFLOW_TRACKING_URI.
        environ: MLflow's variables for clients.

    Raises:
        SettingsError: MLFLOW_TRACKING_URI is not the address of a server.
        BadInputError: It is that of another one.

    Source: MLflow 3.17.2 store/artifact/mlflow_artifacts_repo.py `resolve_uri`,
    utils/rest_utils.py `http_request`.
    """

    def __init__(self, host: str, environ: Mapping[str, str]) -> None:
        uri = environ.get(_SETTING) or ""
        self._subject = f"{_SETTING}: {mask_uri(uri)}"
        try:
            address = urlsplit(uri)
            if address.scheme not in ("http", "https") or not address.hostname:
                raise ValueError
        except ValueError:
            raise SettingsError(
                [f"{_SETTING}: is not the address of a server, which alone knows the artifacts"],
                hint="set it, and MLFLOW_TRACKING_TOKEN; or MLFLOW_ARTIFACTS_DESTINATION",
            ) from None
        own_host = address.netloc.rpartition("@")[2]
        if host and host.lower() != own_host.lower():
            raise BadInputError(f"the artifacts are at the server {host}, not at {own_host}")
        self._url = urlunparse((*address[:2], address.path.rstrip("/") + _API, "", "", ""))
        self._session = _open_session(environ)
        self._verify = _verification(environ)
        self._has_workspaces = True
        self._pool = ThreadPoolExecutor(_THREADS)

    def remove(self, places: Sequence[Place]) -> list[Freed | str]:
        """See `Remover`; files that lie deep are removed and not counted."""
        return list(self._pool.map(self._remove, places))

    def measure(self, places: Sequence[Place]) -> list[Found | str]:
        """See `Remover`."""
        return list(self._pool.map(self._measure, places))

    def folders(self, parts: Sequence[str]) -> Iterator[str]:
        """See `Remover`."""
        for entry in self._list(parts):
            if entry.get("is_dir"):
                yield str(entry["path"])

    def remove_empty(self, folders: Sequence[tuple[str, ...]]) -> None:
        """See `Remover`: a server would remove what is put into one meanwhile."""

    def check(self, parts: Sequence[str]) -> bool:
        """See `Remover`."""
        is_empty = not self._list(parts)
        self._delete((*parts, f".mlflow-server-gc-{uuid.uuid4().hex}"), is_empty=True)
        return not is_empty

    def close(self) -> None:
        """See `Remover`."""
        self._pool.shutdown()
        self._session.close()

    def _remove(self, place: Place) -> Freed | str:
        try:
            parts, entries = self._find(place)
            found = self._count(parts, entries, folders=_FOLDERS_COUNTED)
            self._delete(parts, is_empty=not entries)
        except OpsError as err:
            return err.message
        return Freed(found.files, found.size_bytes)

    def _measure(self, place: Place) -> Found | str:
        try:
            return self._count(*self._find(place))
        except OpsError as err:
            return err.message

    def _find(self, place: Place) -> tuple[tuple[str, ...], Sequence[Mapping[str, Any]]]:
        """The way to the folder that goes, and its entries.

        That is the folder of the id when it has nothing in it but the location; otherwise, and
        when that would take more questions, the location.
        """
        if len(place.inside) <= 1:
            entries = self._list(place.parts)
            if not place.inside or all((entry.get("path"),) == place.inside for entry in entries):
                return place.parts, entries
        return place.end, self._list(place.end)

    def _count(
        self,
        parts: Sequence[str],
        entries: Sequence[Mapping[str, Any]],
        folders: int | None = None,
    ) -> Found:
        """What is in a folder and below.

        Args:
            parts: The way to it.
            entries: Of it.
            folders: How many are looked into; None for all that a server can be asked for.
        """
        found = Found()
        waiting: list[tuple[str, ...]] = []
        looked_into = 1
        while True:
            for entry in entries:
                if not entry.get("is_dir"):
                    found = found.with_file(int(entry.get("file_size") or 0), None)
                elif _is_speakable(below := (*parts, str(entry["path"]))):
                    waiting.append(below)
            if not waiting or looked_into == folders:
                return found
            parts = waiting.pop()
            entries = self._list(parts)
            looked_into += 1

    def _list(self, parts: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        """The entries of a folder, by MLflow's names; none when it is not there."""
        answer = self._ask("GET", parts)
        document = _document(answer)
        entries = document.get("files", []) if answer.ok and document is not None else None
        if not isinstance(entries, list):
            raise self._explain(answer)
        return entries

    def _delete(self, parts: Sequence[str], *, is_empty: bool) -> None:
        """Delete a folder.

        Args:
            parts: The way to it.
            is_empty: The server has told that there is nothing; some then refuse to delete it.
        """
        answer = self._ask("DELETE", parts)
        document = _document(answer)
        if answer.ok and document is not None:
            return
        message = str((document or {}).get("message"))
        if is_empty and (answer.status_code == 404 or message.startswith(_NOTHING)):
            return
        raise self._explain(answer)

    def _ask(self, method: str, parts: Sequence[str]) -> Any:
        """One request, that may be repeated; its answer, whatever that is."""
        import requests

        if not _is_speakable(parts):
            raise BadInputError(f"a tracking server cannot be asked for {'/'.join(parts)!r}")
        url, headers, query = self._url, {}, {}
        if method == "GET":
            query = {"path": "/".join(parts)} if parts else {}
        else:
            url = "/".join((url, *(quote(part, safe="") for part in parts)))
        if self._has_workspaces and len(parts) > 1 and parts[0] == "workspaces":
            headers["X-MLFLOW-WORKSPACE"] = parts[1]
        try:
            answer = self._session.request(
                method,
                url,
                params=query,
                headers=headers,
                verify=self._verify,
                timeout=(_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S),
                allow_redirects=False,
            )
        except ValueError as err:  # an address or token that cannot be sent
            raise SettingsError(
                [f"{self._subject} cannot be used ({type(err).__name__})"],
                hint=f"check {_SETTING} and {_TOKEN}",
            ) from None
        except requests.RequestException as err:
            raise UnavailableError(
                f"{self._subject}: cannot be reached ({type(err).__name__})",
                hint=f"check the address and that the server runs; for https: {_CERTIFICATE}",
            ) from None
        except OSError:
            raise SettingsError([f"{_CERTIFICATE}: the file cannot be read"]) from None
        if headers and (_document(answer) or {}).get("error_code") == _WORKSPACES_ARE_OFF:
            self._has_workspaces = False
            return self._ask(method, parts)
        return answer

    def _explain(self, answer: Any) -> OpsError:
        status = answer.status_code
        if status in (401, 403) or 300 <= status < 400:
            return PermissionDeniedError(
                f"{self._subject}: asks to sign in ({status})",
                hint=f"renew {_TOKEN}; for a redirect, set {_SETTING} to where it leads",
            )
        if answer.ok:
            return UnavailableError(
                f"{self._subject}: does not answer like MLflow", hint=f"check {_SETTING}"
            )
        return UnavailableError(
            f"{self._subject}: answered {status} to {answer.request.method}",
            hint="look at the server's log; it has to serve artifacts",
        )


def _is_speakable(parts: Sequence[str]) -> bool:
    """True for a path that a server takes as it is; from others it makes another one.

    Source: MLflow 3.17.2 utils/uri.py `validate_path_is_safe`.
    """
    path = "/".join(parts)
    if "#" in path or _CONTROL.search(path) or path.startswith("file:"):
        return False
    try:
        return urlunparse(urlparse(unquote(path))) == path
    except ValueError:
        return False


def _document(answer: Any) -> Mapping[str, Any] | None:
    try:
        document = answer.json()
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _open_session(environ: Mapping[str, str]) -> Any:
    """With the credentials and the patience of MLflow's clients."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retry = Retry(
        total=_ATTEMPTS - 1,
        connect=2,
        read=1,
        status_forcelist=(429, 502, 503, 504),
        allowed_methods=None,
        backoff_factor=0.1,
        raise_on_status=False,
        respect_retry_after_header=False,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=_THREADS, max_retries=retry))
    session.cert = environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH") or None
    user, password = environ.get("MLFLOW_TRACKING_USERNAME"), environ.get(_PASSWORD)
    if user and password:
        credentials = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    elif token := environ.get(_TOKEN):
        credentials = f"Bearer {token}"
    else:
        return session

    def authorize(request: Any) -> Any:
        request.headers["Authorization"] = credentials
        return request

    session.auth = authorize  # a mere header would give way to what ~/.netrc has
    return session


def _verification(environ: Mapping[str, str]) -> bool | str:
    """What a server's certificate is checked with; False for not at all."""
    if environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        return False
    return environ.get(_CERTIFICATE) or True
