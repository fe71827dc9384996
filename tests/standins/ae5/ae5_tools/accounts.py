"""The two kinds of account: administrators of Keycloak, and users."""

from __future__ import annotations

import json
import os
import re
from http.cookiejar import LWPCookieJar
from pathlib import Path
from typing import Any

import requests

from . import saved
from .errors import AEException
from .session import FORM, REFUSED, AESessionBase


class AEAdminSession(AESessionBase):
    """An administrator of Keycloak, who may become any user."""

    kind = "tokens"

    def __init__(
        self, hostname: str, username: str, password: str | None = None, persist: bool = True
    ) -> None:
        self.token: dict[str, Any] = {}
        self.tokens = f"https://{hostname}/auth/realms/master/protocol/openid-connect"
        prefix = "auth/admin/realms/AnacondaPlatform"
        super().__init__(hostname, username, password, prefix, persist)

    def load(self) -> None:
        """Exchange the saved token for a new one."""
        if not saved.is_there(self.file):
            return
        told = json.loads(Path(self.file).read_text())
        if "refresh_token" not in told:
            return
        asked = {"grant_type": "refresh_token", "client_id": "admin-cli"}
        asked["refresh_token"] = told["refresh_token"]
        response = self.session.post(f"{self.tokens}/token", data=asked)
        if response.status_code == 200:
            self.token = response.json()

    def save(self) -> None:
        """Keep the token."""
        saved.make_folder(self.file)
        Path(self.file).write_text(json.dumps(self.token))

    def is_signed_in(self) -> bool:
        """Whether there is a token."""
        return "access_token" in self.token

    def set_header(self) -> None:
        """Show the token."""
        self.session.headers["Authorization"] = f"Bearer {self.token['access_token']}"

    def sign_in(self, password: str) -> None:
        """Get a token; what goes wrong is printed on stdout, of all places."""
        asked = {"grant_type": "password", "client_id": "admin-cli"}
        asked |= {"username": self.username, "password": password}
        self.token = {}
        try:
            response = self.session.post(f"{self.tokens}/token", data=asked)
            if response.status_code != 401:
                self.token = response.json()
        except requests.exceptions.RetryError:
            print(f"Exceeded maximum retry limit on call to {self.tokens}/token")
        except Exception as err:
            print(f"Unknown error calling {self.tokens}/token")
            print(err)

    def sign_out(self) -> None:
        """Give the token back."""
        if self.token:
            told = {"refresh_token": self.token["refresh_token"], "client_id": "admin-cli"}
            self.session.post(f"{self.tokens}/logout", data=told)
            self.token = {}

    def impersonate(self, user: str) -> LWPCookieJar:
        """The cookies with which one is that user.

        Raises:
            AEException: There is none of that name or id.
        """
        users = self.send("get", "users", params={"first": 0, "max": 1000})
        found = [each for each in users if user in (each["username"], each["id"])]
        if len(found) != 1:
            pattern = f"username={user}|id={user}"
            raise AEException(f"No records found matching {pattern}")
        headers = self.session.headers.copy()
        try:
            self.send("post", f"users/{found[0]['id']}/impersonation")
            return self.session.cookies  # type: ignore[return-value]
        finally:
            self.session.cookies = LWPCookieJar()  # type: ignore[assignment]
            self.session.headers = headers


class SignedIn(AESessionBase):
    """A user's session: Keycloak's form, then cookies."""

    kind = "cookies"

    def load(self) -> None:
        """Take the saved cookies."""
        if saved.is_there(self.file):
            self.session.cookies.load(self.file, ignore_discard=True)  # type: ignore[attr-defined]
            os.utime(self.file)

    def save(self) -> None:
        """Keep the cookies."""
        saved.make_folder(self.file)
        self.session.cookies.save(self.file, ignore_discard=True)  # type: ignore[attr-defined]
        Path(self.file).chmod(0o600)

    def is_signed_in(self) -> bool:
        """Whether the cookie of a session is there."""
        return any(cookie.name == "_xsrf" for cookie in self.session.cookies)

    def set_header(self) -> None:
        """Say the session's token too."""
        found = [each.value for each in self.session.cookies if each.name == "_xsrf"]
        if found:
            self.session.headers["x-xsrftoken"] = str(found[0])
        self.add_headers()

    def is_form(self, response: requests.Response) -> bool:
        """Whether this is the sign-in page."""
        is_page = response.status_code == 200 and response.headers["content-type"].startswith(
            "text/html"
        )
        return is_page and FORM in response.text

    def sign_in(self, password: Any) -> None:
        """By password, or as an administrator."""
        if isinstance(password, AEAdminSession):
            self.session.cookies = password.impersonate(self.username)  # type: ignore[assignment]
        page = self.session.get(
            f"https://{self.hostname}/auth/realms/AnacondaPlatform/protocol/openid-connect/auth",
            params={
                "client_id": "anaconda-platform",
                "scope": "openid",
                "response_type": "code",
                "redirect_uri": f"https://{self.hostname}/login",
            },
        )
        found = re.search(rf'{FORM}.*?action="([^"]*)"', page.text)
        if found is None:
            return
        told = {"username": self.username, "password": password}
        answer = self.session.post(found[1].replace("&amp;", "&"), data=told)
        if REFUSED in answer.text:
            self.session.cookies.clear()

    def sign_out(self) -> None:
        """End the session on the cluster."""
        self.send("get", "/logout")
