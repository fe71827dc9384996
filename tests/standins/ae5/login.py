"""Sign-in: Keycloak's form, the platform's session, the administrator's token, impersonation.

Names of cookies and the looks of pages are assumed; what ae5-tools looks for is kept to the letter:
the form on one line, the words of a refusal, the cookie `_xsrf`, an expiry on every cookie.
"""

from __future__ import annotations

import html
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

from tests.standins.ae5.wire import Answer, Call, Refusal

if TYPE_CHECKING:
    from tests.standins.ae5.cluster import Cluster

REALM = "/auth/realms/AnacondaPlatform"
MASTER = "/auth/realms/master/protocol/openid-connect"
ADMIN = "/auth/admin/realms/AnacondaPlatform"
CALLBACK = "/_auth/callback"
_IDENTITY, _SESSION, _XSRF = "KEYCLOAK_IDENTITY", "ae-session", "_xsrf"
# A name of its own: Python's cookie jars send cookies of `ae5.test` to `mlflow.ae5.test` too.
_VISIT = "ae-app-session"
_AUTH = {"client_id", "scope", "response_type", "redirect_uri", "state"}
_WRONG = "Invalid username or password."


@dataclass
class _Session:
    user: str
    expires_at: float
    xsrf: str = ""
    endpoint: str = ""
    identity: str = ""


@dataclass
class Login:
    """Who is signed in.

    Args:
        lifetime_s: Of every session and token from now on.
    """

    lifetime_s: int = 3600
    _identities: dict[str, _Session] = field(default_factory=dict, repr=False)
    _sessions: dict[str, _Session] = field(default_factory=dict, repr=False)
    _codes: dict[str, _Session] = field(default_factory=dict, repr=False)
    _forms: set[str] = field(default_factory=set, repr=False)
    _tokens: dict[str, _Session] = field(default_factory=dict, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def expire(self) -> None:
        """End every session of users; what administrators hold stays valid."""
        with self._lock:
            self._identities.clear()
            self._sessions.clear()
            self._codes.clear()

    def new(
        self, kind: dict[str, _Session], user: str, endpoint: str = "", identity: str = ""
    ) -> str:
        """A new secret that stands for a user, in one of the tables above.

        Args:
            kind: The table.
            user: Who it stands for.
            endpoint: The only one where it counts.
            identity: The sign-in that it ends with.
        """
        value = secrets.token_urlsafe(24)
        lives_until = time.time() + self.lifetime_s
        session = _Session(user, lives_until, secrets.token_hex(16), endpoint, identity or value)
        with self._lock:
            kind[value] = session
        return value

    def find(self, kind: dict[str, _Session], value: str) -> _Session | None:
        """Whom a secret stands for, unless it has expired."""
        with self._lock:
            found = kind.get(value)
        return found if found and found.expires_at > time.time() else None

    def cookie(self, name: str, value: str, path: str = "/") -> str:
        """As a header has it; without an expiry `ae5 account list` would break."""
        return f"{name}={value}; Max-Age={self.lifetime_s}; Path={path}; Secure"

    def user_of(self, call: Call) -> str:
        """Who calls the API.

        Raises:
            Refusal: Nobody that is signed in, or without the header that comes with the session.
        """
        session = self.find(self._sessions, call.cookie(_SESSION))
        if session is None or session.endpoint:
            raise Refusal(401, "not signed in")
        if call.headers.get("x-xsrftoken") != session.xsrf:
            raise Refusal(403, "x-xsrftoken is missing or wrong", complaint=True)
        return session.user

    def visitor(self, call: Call, endpoint: str) -> str | None:
        """Who looks at a deployment in a browser; None for nobody that is signed in."""
        session = self.find(self._sessions, call.cookie(_VISIT))
        return session.user if session and session.endpoint == endpoint else None

    def enter(self, call: Call, endpoint: str, url: str) -> Answer:
        """A browser comes back from the sign-in to a deployment; lead it where it wanted to go."""
        session = self.find(self._codes, call.asked("code"))
        if session is None:
            return Answer.page("sign-in failed", 400)
        value = self.new(self._sessions, session.user, endpoint, session.identity)
        target = call.asked("state") or "/"
        return Answer.redirect(f"{url}{target.lstrip('/')}", (self.cookie(_VISIT, value),))


def sign_in_url(cluster: Cluster, endpoint: str, target: str) -> str:
    """Where a browser without a session is sent that wants `target` of an endpoint."""
    query = {
        "client_id": "anaconda-platform",
        "scope": "openid",
        "response_type": "code",
        "redirect_uri": f"https://{endpoint}.{cluster.authority}{CALLBACK}",
        "state": target,
    }
    return f"https://{cluster.authority}{REALM}/protocol/openid-connect/auth?{urlencode(query)}"


def authenticate(cluster: Cluster, call: Call) -> Answer:
    """Keycloak's first page: the form, or on with who is signed in already."""
    login = cluster.login
    asked = dict(call.query)
    ours = f"https://{cluster.authority}/login"
    back = asked.get("redirect_uri", "")
    to_endpoint = back.endswith(f".{cluster.authority}{CALLBACK}")
    if not set(asked) <= _AUTH or asked.get("client_id") != "anaconda-platform":
        raise Refusal(400, "unknown parameters", complaint=True)
    if asked.get("response_type") != "code" or asked.get("scope") != "openid":
        raise Refusal(400, "unknown response_type or scope", complaint=True)
    if back != ours and not to_endpoint:
        raise Refusal(400, "Invalid parameter: redirect_uri", complaint=True)
    identity = call.cookie(_IDENTITY)
    if login.find(login._identities, identity) is not None:
        return _with_code(cluster, identity, back, asked.get("state", ""))
    return _form(cluster, back, asked.get("state", ""))


def _form(cluster: Cluster, back: str, state: str, problem: str = "") -> Answer:
    number = secrets.token_urlsafe(12)
    cluster.login._forms.add(number)
    query = urlencode({"session_code": number, "redirect_uri": back, "state": state})
    url = f"https://{cluster.authority}{REALM}/login-actions/authenticate?{query}"
    return Answer.page(
        "<!doctype html><html><head><title>Sign in</title></head><body>\n"
        f"<p>{problem}</p>\n"
        '<form id="kc-form-login" onsubmit="return true;"'
        f' action="{html.escape(url)}" method="post"><input name="username">'
        '<input name="password" type="password"></form>\n</body></html>\n'
    )


def submit(cluster: Cluster, call: Call) -> Answer:
    """The form comes back."""
    login = cluster.login
    told = dict(parse_qsl(call.body.decode("utf-8", "replace"), keep_blank_values=True))
    if set(told) != {"username", "password"}:
        raise Refusal(400, "username and password are needed, nothing else", complaint=True)
    if call.asked("session_code") not in login._forms:
        raise Refusal(400, "this form was not handed out", complaint=True)
    back, state = call.asked("redirect_uri"), call.asked("state")
    if cluster.users.get(told["username"]) != told["password"]:
        return _form(cluster, back, state, _WRONG)
    login._forms.discard(call.asked("session_code"))
    return _with_code(cluster, login.new(login._identities, told["username"]), back, state)


def _with_code(cluster: Cluster, identity: str, back: str, state: str) -> Answer:
    login = cluster.login
    user = login._identities[identity].user
    code = login.new(login._codes, user, identity=identity)
    cookie = login.cookie(_IDENTITY, identity, f"{REALM}/")
    return Answer.redirect(f"{back}?{urlencode({'state': state, 'code': code})}", (cookie,))


def arrive(cluster: Cluster, call: Call) -> Answer:
    """The platform takes over from Keycloak: the session and its token."""
    login = cluster.login
    code = login._codes.pop(call.asked("code"), None)
    if code is None:
        raise Refusal(400, "unknown code")
    value = login.new(login._sessions, code.user, identity=code.identity)
    cookies = (
        login.cookie(_SESSION, value),
        login.cookie(_XSRF, login._sessions[value].xsrf),
    )
    return Answer.redirect(f"https://{cluster.authority}/", cookies)


def home(cluster: Cluster, call: Call) -> Answer:
    """The platform's first page."""
    return Answer.page("<!doctype html><title>Anaconda Enterprise</title>")


def sign_out(cluster: Cluster, call: Call) -> Answer:
    """End the session of the caller, everywhere."""
    login = cluster.login
    with login._lock:
        session = login._sessions.get(call.cookie(_SESSION))
        if session is not None:
            for table in (login._sessions, login._identities, login._codes):
                ended = [key for key, each in table.items() if each.identity == session.identity]
                for key in ended:
                    del table[key]
    return Answer.page("<!doctype html><title>Signed out</title>")


def admin_token(cluster: Cluster, call: Call) -> Answer:
    """A token for an administrator, by password or by the token before."""
    login = cluster.login
    told = dict(parse_qsl(call.body.decode("utf-8", "replace"), keep_blank_values=True))
    if told.pop("client_id", "") != "admin-cli":
        raise Refusal(400, "unknown client", complaint=True)
    match told:
        case {"grant_type": "password", "username": user, "password": password, **other} if (
            not other
        ):
            if cluster.administrators.get(user) != password:
                return Answer.of({"error": "invalid_grant"}, 401)
        case {"grant_type": "refresh_token", "refresh_token": token, **other} if not other:
            known = login.find(login._tokens, token)
            if known is None:
                return Answer.of({"error": "invalid_grant"}, 400)
            user = known.user
        case _:
            raise Refusal(400, "unknown grant", complaint=True)
    return Answer.of(
        {
            "access_token": login.new(login._tokens, user),
            "refresh_token": login.new(login._tokens, user),
            "expires_in": login.lifetime_s,
            "refresh_expires_in": login.lifetime_s,
            "token_type": "Bearer",
        }
    )


def admin_sign_out(cluster: Cluster, call: Call) -> Answer:
    """Forget a refresh token."""
    told = dict(parse_qsl(call.body.decode("utf-8", "replace")))
    cluster.login._tokens.pop(told.get("refresh_token", ""), None)
    return Answer.of(None)


def need_admin(cluster: Cluster, call: Call) -> None:
    """Refuse everybody who is no administrator."""
    word, _, token = call.headers.get("authorization", "").partition(" ")
    if word != "Bearer" or cluster.login.find(cluster.login._tokens, token) is None:
        raise Refusal(401, "HTTP 401 Unauthorized")


def list_users(cluster: Cluster, call: Call) -> Answer:
    """Some of the users, for an administrator."""
    first, most = int(call.asked("first", "0")), int(call.asked("max", "100"))
    names = sorted(cluster.users)[first : first + most]
    return Answer.of([{"id": cluster.user_ids[name], "username": name} for name in names])


def impersonate(cluster: Cluster, call: Call) -> Answer:
    """Sign an administrator in as a user."""
    wanted = call.path.split("/")[-2]
    names = [name for name, number in cluster.user_ids.items() if number == wanted]
    if not names:
        raise Refusal(404, "User not found")
    login = cluster.login
    identity = login.cookie(_IDENTITY, login.new(login._identities, names[0]), f"{REALM}/")
    answer = Answer.of({"sameRealm": False, "redirect": f"https://{cluster.authority}{REALM}"})
    return Answer(answer.status, answer.body, (*answer.headers, ("Set-Cookie", identity)))
