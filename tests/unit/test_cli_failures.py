"""What a failure looks like, whatever its message holds."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from mlflow_server.cli.main import _report_failure
from mlflow_server.cli.shared import Context
from mlflow_server.errors import UnavailableError

SECRET = 'planted"word\\'


@pytest.mark.parametrize("as_json", [False, True])
def test_known_secrets_are_masked_in_text_and_in_json(
    capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    settings: Any = SimpleNamespace(secret_values={SECRET})
    context = Context(json=as_json, settings=settings)
    err = UnavailableError(f"cannot reach {SECRET}", hint="try postgresql://ada:hidden@db/m")
    assert _report_failure(err, context) == 69
    out, text = capsys.readouterr()
    assert "planted" not in out + text
    assert "hidden" not in out + text
    if as_json:
        document = json.loads(out)
        assert document["error"] == {
            "message": "cannot reach ***",
            "hint": "try postgresql://ada:***@db/m",
        }
