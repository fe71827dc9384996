"""Every setting is described, and values are written the way they are read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from mlflow_server.settings.load import Source
from mlflow_server.settings.model import Definition, iter_definitions, render_value
from mlflow_server.uris import MASK
from tests.unit.making import load

DEFINITIONS = list(iter_definitions())
# Set beside the values by `making.load`.
SECRETS_DIR = "TRACKING_SERVER_SECRETS_DIR"


def by_name(name: str) -> Definition:
    return next(entry for entry in DEFINITIONS if entry.setting.name == name)


def test_names_and_options_are_unique() -> None:
    names = [entry.setting.name for entry in DEFINITIONS]
    options = [entry.setting.option for entry in DEFINITIONS if entry.setting.option]
    assert len(set(names)) == len(names)
    assert len(set(options)) == len(options)


@pytest.mark.parametrize("entry", DEFINITIONS, ids=lambda entry: entry.setting.name)
def test_each_setting_has_a_name_an_option_in_whole_words_and_a_sentence(entry: Definition) -> None:
    assert re.fullmatch(r"(MLFLOW|TRACKING_SERVER)_[A-Z0-9_]+", entry.setting.name)
    if entry.setting.option:
        assert re.fullmatch(r"--[a-z]+(-[a-z]+)*", entry.setting.option)
    assert re.fullmatch(r"[A-Z][^\n|]*\.", entry.setting.meaning)


def test_knows_which_settings_are_secret() -> None:
    assert {entry.setting.name for entry in DEFINITIONS if entry.is_secret} == {
        "MLFLOW_BACKEND_STORE_URI",
        "MLFLOW_READ_REPLICA_BACKEND_STORE_URI",
        "MLFLOW_REGISTRY_STORE_URI",
        "MLFLOW_TRACKING_TOKEN",
        "TRACKING_SERVER_TO_BACKEND_STORE_URI",
    }


@pytest.mark.parametrize("entry", DEFINITIONS, ids=lambda entry: entry.setting.name)
def test_a_default_reads_back_as_itself(tmp_path: Path, entry: Definition) -> None:
    """What `settings` and the documentation show can be put into the environment."""
    text = render_value(entry.default)
    loaded = load(tmp_path, environ={entry.setting.name: text})
    assert getattr(getattr(loaded.settings, entry.group), entry.field) == entry.default
    if text:
        assert loaded.source_of(entry.setting.name) is Source.ENVIRONMENT


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("MLFLOW_BACKEND_STORE_URI", "postgresql://u:pw@db/x", f"postgresql://u:{MASK}@db/x"),
        ("MLFLOW_TRACKING_TOKEN", "token", MASK),
        ("MLFLOW_TRACKING_URI", "https://u:pw@host", f"https://u:{MASK}@host"),
        ("MLFLOW_ARTIFACTS_DESTINATION", "sftp://u:pw@host/a", f"sftp://u:{MASK}@host/a"),
        ("MLFLOW_TRACKING_GC_TTL", "1d0h", "1d"),
        ("TRACKING_SERVER_METRICS", "yes", "true"),
        ("TRACKING_SERVER_METRICS", "0", "false"),
        ("MLFLOW_SERVER_ALLOWED_HOSTS", " a.example.com,b  c ", "a.example.com,b,c"),
        ("TRACKING_SERVER_TRUSTED_PROXIES", "10.0.0.1 fc00::/7", "10.0.0.1,fc00::/7"),
        ("TRACKING_SERVER_PUBLIC_URL", "https://h:8443/p/", "https://h:8443/p"),
        ("MLFLOW_STATIC_PREFIX", "mlflow/", "/mlflow"),
        ("MLFLOW_STATIC_PREFIX", "/", ""),
        ("TRACKING_SERVER_GRACEFUL_TIMEOUT", "0s", "0s"),
    ],
)
def test_shows_values_in_one_form_and_masked(
    tmp_path: Path, name: str, text: str, shown: str
) -> None:
    settings = load(tmp_path, environ={name: text}).settings
    value = getattr(getattr(settings, by_name(name).group), by_name(name).field)
    assert render_value(value) == shown


@pytest.mark.parametrize("value", [SecretStr("x"), SecretStr("a://b"), SecretStr("a@b:c")])
def test_a_secret_that_is_no_uri_is_masked_whole(value: SecretStr) -> None:
    shown = render_value(value)
    assert shown in (MASK, "a://b")


def test_a_token_that_looks_like_a_uri_is_masked(tmp_path: Path) -> None:
    """Nobody knows which part of such a token is the secret."""
    loaded = load(tmp_path, environ={"MLFLOW_TRACKING_TOKEN": "S3cr3t://Marker"})
    shown = render_value(loaded.settings.client.tracking_token)
    assert "S3cr3t" not in shown
    assert "Marker" not in shown
    assert "S3cr3t://Marker" in loaded.secret_values


@pytest.mark.parametrize(
    ("name", "bad"),
    [(entry.setting.name, "\t!") for entry in DEFINITIONS if isinstance(entry.default, bool | int)],
)
def test_switches_and_numbers_refuse_nonsense(tmp_path: Path, name: str, bad: str) -> None:
    from mlflow_server.errors import SettingsError

    with pytest.raises(SettingsError, match=f"^{name} "):
        load(tmp_path, environ={name: bad})


@pytest.mark.parametrize("entry", DEFINITIONS, ids=lambda entry: entry.setting.name)
def test_shown_defaults_begin_with_the_real_one_where_it_is_a_plain_value(
    entry: Definition,
) -> None:
    """`shown_default` may say more than the value, not something else."""
    from mlflow_server.units import parse_duration

    shown = entry.setting.shown_default
    if shown is None or entry.default is None or entry.default == ():
        return
    if isinstance(entry.default, float):
        assert parse_duration(shown) == entry.default
    else:
        assert shown.startswith(render_value(entry.default))
