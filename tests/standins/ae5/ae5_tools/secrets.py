"""Secrets of the user."""

from __future__ import annotations

import re
from typing import Any

from .errors import AEException
from .reading import Reader

_NAME = re.compile(r"[a-zA-Z0-9_]+$")


def _check(key: str, verb: str) -> None:
    if _NAME.match(key) is None:
        raise AEException(
            f"User secret {key} can not be {verb}. Key contains non-alphanumeric characters."
        )


class Secrets(Reader):
    """What a user does with secrets."""

    def secret_add(self, key: str, value: str, **_: Any) -> None:
        """Add or replace one.

        Raises:
            AEException: The name is none, or the cluster refuses: then the value is in the text.
        """
        _check(key, "created")
        self.send("post", "credentials/user", json={"key": key, "value": value})

    def secret_delete(self, key: str, **_: Any) -> None:
        """Remove one.

        Raises:
            AEException: There is none.
        """
        _check(key, "deleted")
        if key not in [each["secret_name"] for each in self.secret_list()]:
            raise AEException(f"User secret {key} was not found and cannot be deleted.")
        self.send("delete", f"credentials/user/{key}")

    def secret_list(self, format: str | None = None, **_: Any) -> Any:
        """Their names, as records with `secret_name`."""
        told = self.send("get", "credentials/user")
        if "data" not in told:
            raise AEException("Failed to retrieve user secrets.")
        return self.shaped([{"secret_name": name} for name in told["data"]], format)
