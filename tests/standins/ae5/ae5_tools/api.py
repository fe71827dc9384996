"""The session of a user, with everything that the program does with it.

The same as the real class: the constructor, `secret_add`, `secret_list`, `secret_delete` and
`authorize`; and the errors of `errors.py`. The names of the other methods are the real ones where
there is one.
"""

from __future__ import annotations

import os
from typing import Any

from .accounts import AEAdminSession
from .deployments import Deployments
from .errors import AEException, AEUnexpectedResponseError
from .jobs import Jobs
from .projects import Projects
from .secrets import Secrets

__all__ = ["AEAdminSession", "AEException", "AEUnexpectedResponseError", "AEUserSession"]


class AEUserSession(Deployments, Jobs, Projects, Secrets):
    """A user on a cluster; nothing is sent before the first call.

    Args:
        hostname: `name[:port]`, no scheme, no slash.
        username: Who it is.
        password: None to be asked when it is needed; an administrator's session to become the user.
        persist: Load the session from disk, and save it there; without, it ends with the object.
        k8s_endpoint: Where the helper for Kubernetes is; not used here.
    """

    def __init__(
        self,
        hostname: str,
        username: str,
        password: str | AEAdminSession | None = None,
        persist: bool = True,
        k8s_endpoint: str | None = None,
    ) -> None:
        super().__init__(hostname, username, password, "api/v2", persist)
        self.k8s_endpoint = k8s_endpoint or os.environ.get("AE5_K8S_ENDPOINT") or "k8s"

    def api(self, method: str, endpoint: str, **request: Any) -> Any:
        """Any call."""
        form = request.pop("format", None)
        return self.shaped(self.send(method, endpoint, **request), form)
