"""Kinds of values that settings have: how each is read and judged. Pure."""

import ipaddress
import re
from functools import cache
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from mlflow_server.units import parse_duration
from mlflow_server.uris import parse_artifacts_destination, parse_store_uri


def _duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def split_words(text: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[,\s]+", text) if word)


def _words(value: object) -> object:
    return split_words(value) if isinstance(value, str) else value


def _store_uri(value: SecretStr) -> SecretStr:
    parse_store_uri(value.get_secret_value())
    return value


def _destination(value: str) -> str:
    parse_artifacts_destination(value, plugin_schemes=installed_artifact_schemes())
    return value


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("is not an http(s) URL; write https://HOST[:PORT][/PREFIX]")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must not hold credentials, a query or a fragment")
    try:
        _url_prefix(parts.path)
    except ValueError:
        raise ValueError("has a path that is not plain; write https://HOST/NAME") from None
    return value.rstrip("/")


def _url_prefix(value: str) -> str:
    prefix = "/" + value.strip("/")
    if prefix == "/":
        return ""
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", prefix) or "/.." in prefix or "/." in prefix:
        raise ValueError("is not a plain path; write /NAME or /NAME/NAME")
    return prefix


def _ascii(value: tuple[str, ...]) -> tuple[str, ...]:
    if not all(word.isascii() for word in value):
        raise ValueError("holds an international name; write it as browsers send it (xn--…)")
    return value


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for word in value:
        try:
            ipaddress.ip_network(word, strict=False)
        except ValueError:
            raise ValueError(
                f"holds {word[:40]!r}, which is no address or network; write 10.0.0.0/8"
            ) from None
    return value


@cache
def installed_artifact_schemes() -> frozenset[str]:
    """URI schemes for which an MLflow plugin is installed (entry points, nothing is imported)."""
    from importlib.metadata import entry_points

    return frozenset(entry.name for entry in entry_points(group="mlflow.artifact_repository"))


Port = Annotated[int, Field(ge=1, le=65_535)]
Count = Annotated[int, Field(ge=1, le=1_000)]
Duration = Annotated[float, BeforeValidator(_duration)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
StoreUriText = Annotated[SecretStr, AfterValidator(_store_uri)]
Destination = Annotated[str, AfterValidator(_destination)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
UrlPrefix = Annotated[str, AfterValidator(_url_prefix)]
AsciiWords = Annotated[Words, AfterValidator(_ascii)]
Networks = Annotated[Words, AfterValidator(_networks)]
