"""Destinations that only MLflow knows: the probe goes through its artifact repositories."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_server.artifacts.probe import needs_mlflow, probe
from mlflow_server.errors import UnavailableError
from mlflow_server.uris import ArtifactScheme, ArtifactUri
from tests.support.programs import free_port


def other(text: str) -> ArtifactUri:
    """A destination of a scheme without a probe of its own."""
    return ArtifactUri(text, ArtifactScheme.OTHER, None, "", "", text)


def test_probe_works_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts, temporary = tmp_path / "artifacts", tmp_path / "tmp"
    artifacts.mkdir()
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    uri = other(artifacts.as_uri())
    assert needs_mlflow(uri)
    probe(uri, {}, timeout_s=60)
    assert list(artifacts.iterdir()) == []
    assert list(temporary.iterdir()) == []


def test_failure_is_69_and_says_its_kind_only() -> None:
    uri = other(f"ftp://ada@127.0.0.1:{free_port()}/artifacts")
    with pytest.raises(UnavailableError, match=r"probe failed \(ConnectionRefusedError\)"):
        probe(uri, {}, timeout_s=60)
