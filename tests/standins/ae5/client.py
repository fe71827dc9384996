"""Clients of a cluster in the process of the tests: what programs and browsers do."""

from __future__ import annotations

import contextlib
import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from tests.standins.ae5.cluster import PASSWORD, USER, Cluster


class Client(requests.Session):
    """Finds a cluster's names and trusts its certificate, whatever the environment says."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self.cluster = cluster
        self.trust_env = False
        self.proxies = {"https": cluster.tunnel.url}
        self.verify = str(cluster.certificate.path)

    def ask(self, method: str, path: str, endpoint: str = "", **request: Any) -> requests.Response:
        """One request without following redirects.

        Args:
            method: In capital letters.
            path: With a leading slash; without one, of the API.
            endpoint: A deployment instead of the platform.
            request: For `requests`; `token` is one of a deployment.
        """
        if token := request.pop("token", ""):
            request["headers"] = {"Authorization": f"Bearer {token}", **request.get("headers", {})}
        address = path if path.startswith("/") else f"/api/v2/{path}"
        url = f"{self.cluster.url(endpoint)}{address}"
        return self.request(method, url, allow_redirects=False, timeout=30, **request)

    def sign_in(self, user: str = USER, password: str = PASSWORD) -> requests.Response:
        """Fill in the form, as a browser does; returns where it leads to."""
        page = self.get(
            f"{self.cluster.url()}/auth/realms/AnacondaPlatform/protocol/openid-connect/auth",
            params={
                "client_id": "anaconda-platform",
                "scope": "openid",
                "response_type": "code",
                "redirect_uri": f"{self.cluster.url()}/login",
            },
            timeout=30,
        )
        found = re.search(r'<form id="kc-form-login".*action="([^"]*)"', page.text)
        assert found is not None
        told = {"username": user, "password": password}
        answer = self.post(html.unescape(found[1]), data=told, timeout=30)
        for cookie in self.cookies:
            if cookie.name == "_xsrf":
                self.headers["x-xsrftoken"] = str(cookie.value)
        return answer

    def upload(self, archive: Path, name: str) -> requests.Response:
        """Make a project of an archive."""
        with archive.open("rb") as file:
            return self.ask(
                "POST", "projects/upload", files={"project_file": file}, data={"name": name}
            )

    def body_for(self, project: str, command: str, **more: Any) -> tuple[str, dict[str, Any]]:
        """A project's id, and what deployments and jobs of it have in common in their bodies."""
        found = next(each for each in self.cluster.projects if each.name == project)
        told = {
            "source": f"{found.url}/revisions/{found.revisions[-1].name}",
            "revision": "latest",
            "resource_profile": "default",
            "command": command,
            "target": "deploy",
        }
        return found.id, told | more

    def deploy(self, project: str, command: str = "Server", **more: Any) -> requests.Response:
        """Start a private deployment."""
        number, told = self.body_for(project, command, **{"public": False, **more})
        return self.ask("POST", f"projects/{number}/deployments", json=told)

    def make_job(self, project: str, command: str, **more: Any) -> requests.Response:
        """Make a job that runs at once, unless `autorun` says no."""
        fixed = {"schedule": None, "autorun": True, "name": f"{command}-job"}
        number, told = self.body_for(project, command, **{**fixed, **more})
        return self.ask("POST", f"projects/{number}/jobs", json=told)


@contextlib.contextmanager
def signed_in(cluster: Cluster, user: str = USER) -> Iterator[Client]:
    """A client that has signed in."""
    with Client(cluster) as client:
        client.sign_in(user, cluster.users[user])
        yield client
