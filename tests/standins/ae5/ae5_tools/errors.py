"""What goes wrong, as the real package names it."""

from __future__ import annotations

import requests


class AEException(RuntimeError):
    """The program shows it as `Error: …` and ends with 1; anything else is a traceback."""


class AEUnexpectedResponseError(AEException):
    """An answer that is none of success.

    The text repeats what was sent, so that a secret that could not be added is in it.

    Args:
        response: The answer, or words when there was none.
        method: In small letters.
        url: The whole address.
        sent: `params`, `data` and `json` of the request; other keys are left out.
    """

    def __init__(
        self, response: requests.Response | str, method: str, url: str, **sent: object
    ) -> None:
        if isinstance(response, str):
            lines = [f"Unexpected response: {response}"]
        else:
            lines = [
                f"Unexpected response: {response.status_code} {response.reason}",
                f"  {method.upper()} {url}",
            ]
            lines += [f"  headers: {response.headers}"] if response.headers else []
            lines += [f"  text: {response.text}"] if response.text else []
        lines += [f"  {name}: {sent[name]}" for name in ("params", "data", "json") if name in sent]
        super().__init__("\n".join(lines))
