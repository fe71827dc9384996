"""Shorter ways through MLflow's FastAPI app, with the same answers.

Source of what is relied on: MLflow 3.17.2 `server/fastapi_app.py`; `tests/integration/test_app.py`
fails when it moves. Measurements: `docs/design/serve.md`.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from mlflow_server.server.front import App
from mlflow_server.server.wsgi import WsgiBridge

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

_METHODS = frozenset({"DELETE", "GET", "PATCH", "POST", "PUT"})


def spare_middleware(fastapi_app: Any) -> None:
    """Run MLflow's two function middlewares only for the requests that they are for.

    Starlette wraps each in a task group and two memory streams, about a third of what a small
    request costs outside Flask. One times `/gateway/` calls and passes all others on. The other
    sets the workspace from a header; without workspaces and without the header Flask's own hook
    (`workspace_before_request_handler`) does the same, and native routes use no workspace.

    Source: MLflow 3.17.2 `server/fastapi_app.py`; `tests/integration/test_app.py` watches it.
    """
    from mlflow.environment_variables import MLFLOW_ENABLE_WORKSPACES

    def is_gateway(scope: Any) -> bool:
        return bool(scope["path"].startswith("/gateway"))

    def names_workspace(scope: Any) -> bool:
        return any(name == b"x-mlflow-workspace" for name, _ in scope["headers"])

    conditions: dict[str, Callable[[Any], bool]] = {"gateway_timing_middleware": is_gateway}
    if not MLFLOW_ENABLE_WORKSPACES.get():
        conditions["workspace_context_middleware"] = names_workspace
    for middleware in fastapi_app.user_middleware:
        dispatch = middleware.kwargs.get("dispatch")
        condition = conditions.get(getattr(dispatch, "__name__", ""))
        if condition is not None:
            middleware.kwargs = {
                "inner": middleware.cls,
                "condition": condition,
                **middleware.kwargs,
            }
            middleware.cls = _OnlyIf


def use_own_bridge(fastapi_app: Any, flask_app: Any) -> None:
    """Mount Flask by `wsgi.WsgiBridge`, where MLflow has mounted it by its own."""
    from mlflow.server.fastapi_app import _EfficientWSGIMiddleware, build_environ

    for route in fastapi_app.routes:
        if isinstance(getattr(route, "app", None), _EfficientWSGIMiddleware):
            route.app = WsgiBridge(flask_app, build_environ)


def route_straight_to_flask(fastapi_app: Any, flask_app: Any) -> None:
    """Look up Flask's fixed paths at once, where FastAPI tries all of its own routes before.

    Flask is mounted behind every FastAPI route, so each of its requests is first compared with all
    of those by regular expressions: 8 % of a `log_metric`. Whether a fixed path ends up at Flask is
    found out by those very routes when it is first asked for.
    """
    from starlette.routing import BaseRoute, Match

    routes: list[BaseRoute] = fastapi_app.router.routes
    mount = next(route for route in routes if isinstance(getattr(route, "app", None), WsgiBridge))
    fixed = {rule.rule for rule in flask_app.url_map.iter_rules() if not rule.arguments}
    ends_at_flask: dict[tuple[str, str], bool] = {}

    class StraightToFlask(BaseRoute):
        def matches(self, scope: Any) -> tuple[Match, Any]:
            # Behind a root path the mount has to say what is left of the path: the long way.
            if scope["type"] != "http" or scope.get("root_path"):
                return Match.NONE, {}
            key = scope["method"], scope["path"]
            known = ends_at_flask.get(key)
            if known is None and key[0] in _METHODS and key[1] in fixed:
                known = ends_at_flask[key] = _first_match(routes[1:], *key) is mount
            return mount.matches(scope) if known else (Match.NONE, {})

        async def handle(self, scope: Any, receive: Any, send: Any) -> None:
            await mount.handle(scope, receive, send)

    routes.insert(0, StraightToFlask())


def _first_match(routes: "Sequence[BaseRoute]", method: str, path: str) -> "BaseRoute | None":
    from starlette.routing import Match

    for route in routes:
        scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
        if route.matches(scope)[0] is Match.FULL:
            return route
    return None


class _OnlyIf:
    """A middleware that steps aside unless a condition on the scope holds."""

    def __init__(
        self, app: App, inner: Callable[..., App], condition: Callable[[Any], bool], **kwargs: Any
    ) -> None:
        self._app = app
        self._inner = inner(app, **kwargs)
        self._condition = condition

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        is_concerned = scope["type"] == "http" and self._condition(scope)
        chosen = self._inner if is_concerned else self._app
        return chosen(scope, receive, send)
