"""Names on the platform: which ones may be, told before the platform is asked. Pure."""

import re

from mlflow_server.errors import UsageError

# ae5 splits names at these, or takes them for patterns (facts of ae5-tools 0.7.3).
_SPECIAL = re.compile(r"[:/,|&=<>!*?\[\]\s]")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SECRET = re.compile(r"[A-Za-z0-9_]+")


def require_name(name: str, what: str) -> str:
    """A name that ae5 finds again.

    Args:
        name: Of a project, a deployment or a job.
        what: Of which, for the message.

    Raises:
        UsageError: It is none.
    """
    if not name or len(name) > 200 or not name.isascii() or _SPECIAL.search(name):
        raise UsageError(
            f"{what} {name!r}: may hold letters, digits, '.', '_' and '-' only: ae5 takes other "
            "characters apart"
        )
    return name


def require_endpoint(name: str) -> str:
    """The name of a static endpoint, as a DNS label: the platform lower-cases it.

    Raises:
        UsageError: It is none. (ae5 itself lets some of these pass.)
    """
    if not _LABEL.fullmatch(name.lower()):
        raise UsageError(
            f"endpoint {name!r}: is no DNS label",
            hint="1 to 63 letters, digits and '-', which may not come first or last",
        )
    return name.lower()


def require_secret_name(name: str) -> str:
    """The name of a secret on the platform.

    Raises:
        UsageError: It is none.
    """
    if not _SECRET.fullmatch(name):
        raise UsageError(f"secret {name!r}: may hold letters, digits and '_' only")
    return name
