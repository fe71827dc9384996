"""From settings and facts to a launch: names, prefix, frames, proxies, warnings."""

from __future__ import annotations

import fnmatch
from pathlib import Path

import pytest

from mlflow_server.errors import SettingsError
from mlflow_server.server.environment import mlflow_uri, server_environment
from mlflow_server.server.plan import (
    LOOPBACK_HOSTS,
    PRIVATE_NETWORKS,
    Facts,
    make_plan,
    mlflow_allowed_hosts,
    without_port,
)
from mlflow_server.store.engine import require_driver
from mlflow_server.uris import ArtifactScheme
from tests.unit.making import FACTS, load, plan_for

SECRET = "S3cr3tMarker"
P = "--anaconda-project-"


def public_names(*flags: str, folder: Path, **environ: str) -> list[str]:
    """Allowed names beyond loopback."""
    names = plan_for(folder, environ=environ, flags=flags).allowed_names
    assert names[: len(LOOPBACK_HOSTS)] == LOOPBACK_HOSTS
    return list(names[len(LOOPBACK_HOSTS) :])


# Host names and origins


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("localhost:5000", "localhost"),
        ("MLflow.Example.COM:443", "mlflow.example.com"),
        ("10.0.0.1:80", "10.0.0.1"),
        ("[::1]", "[::1]"),
        ("[::1]:5000", "[::1]"),
        ("::1", "[::1]"),
        ("fe80::A", "[fe80::a]"),
        (" host \t", "host"),
        ("*.example.com:*", "*.example.com"),
        ("", ""),
        (":5000", ""),
    ],
)
def test_a_name_loses_its_port_and_ipv6_gets_brackets(header: str, name: str) -> None:
    assert without_port(header) == name


def test_without_anything_only_loopback_is_named(tmp_path: Path) -> None:
    plan = plan_for(tmp_path)
    assert plan.allowed_names == LOOPBACK_HOSTS
    assert plan.allowed_origins == ()
    assert plan.frame_ancestors == ()
    assert plan.url_prefix == ""
    assert plan.warnings == ()


def test_hosts_of_the_platform_become_names_and_origins(tmp_path: Path) -> None:
    flags = [f"{P}host", "Mlflow.Example.com:8443", f"{P}host=other.example.com"]
    plan = plan_for(tmp_path, flags=flags)
    assert plan.allowed_names == (*LOOPBACK_HOSTS, "mlflow.example.com", "other.example.com")
    assert plan.allowed_origins == (
        "https://mlflow.example.com:8443",
        "http://mlflow.example.com:8443",
        "https://other.example.com",
        "http://other.example.com",
    )


def test_a_public_url_gives_name_origin_and_prefix(tmp_path: Path) -> None:
    url = "https://MLflow.example.com:8443/team/mlflow/"
    plan = plan_for(tmp_path, environ={"TRACKING_SERVER_PUBLIC_URL": url})
    assert plan.allowed_names == (*LOOPBACK_HOSTS, "mlflow.example.com")
    assert plan.allowed_origins == ("https://mlflow.example.com:8443",)
    assert plan.url_prefix == "/team/mlflow"


def test_a_public_url_with_an_ipv6_address(tmp_path: Path) -> None:
    url = "http://[2001:db8::1]:8080"
    plan = plan_for(tmp_path, environ={"TRACKING_SERVER_PUBLIC_URL": url})
    assert plan.allowed_names == (*LOOPBACK_HOSTS, "[2001:db8::1]")
    assert plan.allowed_origins == ("http://[2001:db8::1]:8080",)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://mlflow.example.com:443", "https://mlflow.example.com"),
        ("http://mlflow.example.com:80/mlflow", "http://mlflow.example.com"),
        ("https://mlflow.example.com:80", "https://mlflow.example.com:80"),
    ],
)
def test_an_origin_is_written_as_browsers_do_without_the_default_port(
    tmp_path: Path, url: str, origin: str
) -> None:
    plan = plan_for(tmp_path, environ={"TRACKING_SERVER_PUBLIC_URL": url})
    assert plan.allowed_origins == (origin,)


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("127.0.0.1", []),
        ("0.0.0.0", []),  # noqa: S104 - as AE5 wants it
        ("::", []),
        ("192.0.2.1", ["192.0.2.1"]),
        ("2001:db8::1", ["[2001:db8::1]"]),
        ("mlflow.internal", ["mlflow.internal"]),
    ],
)
def test_the_address_it_listens_on_is_allowed(tmp_path: Path, host: str, names: list[str]) -> None:
    assert public_names(folder=tmp_path, MLFLOW_HOST=host) == names


def test_brackets_around_an_address_to_listen_on_are_understood(tmp_path: Path) -> None:
    plan = plan_for(tmp_path, environ={"MLFLOW_HOST": "[2001:db8::1]"})
    assert plan.host == "2001:db8::1"
    assert "[2001:db8::1]" in plan.allowed_names


def test_each_name_is_there_once(tmp_path: Path) -> None:
    flags = [f"{P}host=a.example.com", f"{P}host=A.example.com:443"]
    names = public_names(*flags, folder=tmp_path, MLFLOW_SERVER_ALLOWED_HOSTS="a.example.com,b")
    assert names == ["a.example.com", "b"]


def test_a_star_of_the_platform_is_never_taken(tmp_path: Path) -> None:
    plan = plan_for(tmp_path, flags=[f"{P}host", "*", f"{P}host=*.example.com"])
    assert plan.allowed_names == LOOPBACK_HOSTS
    assert plan.allowed_origins == ()
    assert any("host * is ignored" in warning for warning in plan.warnings)


def test_further_origins_lose_their_slash(tmp_path: Path) -> None:
    environ = {"MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "https://A.example.com/, http://b:3000"}
    assert plan_for(tmp_path, environ=environ).allowed_origins == (
        "https://a.example.com",
        "http://b:3000",
    )


def test_mlflow_gets_each_name_with_and_without_port() -> None:
    patterns = mlflow_allowed_hosts(["mlflow.example.com", "[::1]"]).split(",")

    def lets_in(host: str) -> bool:  # MLflow 3.17.2 server/security_utils.py is_allowed_host_header
        return any(fnmatch.fnmatch(host, p) if "*" in p else host == p for p in patterns)

    good = ["mlflow.example.com", "mlflow.example.com:8443", "[::1]", "[::1]:5000"]
    good += ["10.1.2.3:80", "192.168.0.1", "172.16.0.1:1", "172.31.0.1", "[fd00::1]:5000"]
    assert [host for host in good if not lets_in(host)] == []
    bad = ["evil.example.com", "mlflow.example.com.evil.com", "172.32.0.1", "8.8.8.8", ":5000"]
    assert [host for host in bad if lets_in(host)] == []


def test_mlflow_gets_a_star_only_when_the_operator_said_so() -> None:
    assert mlflow_allowed_hosts(["localhost", "*"]) == "*"
    assert "*" not in mlflow_allowed_hosts(["localhost"]).split(",")


# Prefix, frames, proxies


@pytest.mark.parametrize(
    ("url", "prefix", "flag", "expected"),
    [
        ("", "", "", ""),
        ("https://h/a", "", "", "/a"),
        ("https://h/a", "/b", "", "/b"),
        ("https://h/a", "/", "", ""),
        ("https://h/a", "", "/c", "/c"),
        ("https://h/a", "/b", "/c/", "/c"),
        ("https://h", "", "", ""),
    ],
)
def test_the_prefix_comes_from_flag_setting_or_public_url(
    tmp_path: Path, url: str, prefix: str, flag: str, expected: str
) -> None:
    environ = {"TRACKING_SERVER_PUBLIC_URL": url, "MLFLOW_STATIC_PREFIX": prefix}
    flags = [f"{P}url-prefix", flag] if flag else []
    assert plan_for(tmp_path, environ=environ, flags=flags).url_prefix == expected


@pytest.mark.parametrize("path", ["/team%20a", "/a/../b", "/a//b", "/a;b"])
def test_the_path_of_a_public_url_is_held_to_the_rules_of_a_prefix(
    tmp_path: Path, path: str
) -> None:
    """The server compares it with decoded, normal paths: this one would never fit."""
    with pytest.raises(SettingsError, match="TRACKING_SERVER_PUBLIC_URL"):
        plan_for(tmp_path, environ={"TRACKING_SERVER_PUBLIC_URL": f"https://h{path}"})


def test_frames_of_the_platform_may_use_either_scheme(tmp_path: Path) -> None:
    flags = [f"{P}iframe-hosts", "ae5.example.com *.example.com:8443"]
    plan = plan_for(tmp_path, flags=flags)
    assert plan.frame_ancestors == (
        "https://ae5.example.com",
        "ae5.example.com",
        "https://*.example.com:8443",
        "*.example.com:8443",
    )


@pytest.mark.parametrize("source", ["*", "https://a.example.com", "http://b:3000"])
def test_frame_sources_with_a_scheme_stay_as_they_are(tmp_path: Path, source: str) -> None:
    plan = plan_for(tmp_path, environ={"TRACKING_SERVER_FRAME_ANCESTORS": source})
    assert plan.frame_ancestors == (source,)


@pytest.mark.parametrize("entry", ["a;script-src", "'none'", "'self'", ";"])
def test_a_frame_source_cannot_change_the_rest_of_the_policy(tmp_path: Path, entry: str) -> None:
    environ = {"TRACKING_SERVER_FRAME_ANCESTORS": f"{entry} good.example.com"}
    plan = plan_for(tmp_path, environ=environ)
    assert plan.frame_ancestors == ("https://good.example.com", "good.example.com")


def test_only_this_machine_is_trusted_as_a_proxy_by_default(tmp_path: Path) -> None:
    assert plan_for(tmp_path).trusted_proxies == ("127.0.0.1", "::1")
    flags = [f"{P}host=h"]
    assert plan_for(tmp_path, flags=flags).trusted_proxies == ("127.0.0.1", "::1")


def test_private_networks_are_trusted_when_the_platform_says_so(tmp_path: Path) -> None:
    plan = plan_for(tmp_path, flags=[f"{P}use-xheaders"])
    assert plan.trusted_proxies == PRIVATE_NETWORKS


def test_the_operators_proxies_beat_the_platform(tmp_path: Path) -> None:
    environ = {"TRACKING_SERVER_TRUSTED_PROXIES": "10.1.2.3/8,fc00::1"}
    plan = plan_for(tmp_path, environ=environ, flags=[f"{P}use-xheaders"])
    assert plan.trusted_proxies == ("10.0.0.0/8", "fc00::1/128")


# Processes and pools


@pytest.mark.parametrize(("cores", "workers"), [(1, 2), (2, 2), (3, 3), (4, 4), (64, 4)])
def test_workers_follow_the_cores_from_two_to_four(
    tmp_path: Path, cores: int, workers: int
) -> None:
    assert plan_for(tmp_path, facts=Facts(usable_cores=cores)).workers == workers


def test_workers_by_setting_win(tmp_path: Path) -> None:
    assert plan_for(tmp_path, environ={"MLFLOW_WORKERS": "9"}).workers == 9


def test_as_many_threads_as_connections(tmp_path: Path) -> None:
    environ = {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "7", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "4"}
    plan = plan_for(tmp_path, environ=environ)
    assert plan.threads == 11
    # Each worker: its pool, and one connection of /readyz.
    assert plan.max_connections == 2 * (7 + 4 + 1)


def test_threads_by_setting_win(tmp_path: Path) -> None:
    assert plan_for(tmp_path, environ={"TRACKING_SERVER_THREADS": "3"}).threads == 3


def test_a_registry_in_the_same_database_is_no_second_store(tmp_path: Path) -> None:
    uri = "postgresql://db/x"
    environ = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_REGISTRY_STORE_URI": uri}
    plan = plan_for(tmp_path, environ=environ)
    assert plan.registry is None
    assert [store.text for store in plan.stores] == [uri]


def test_every_other_store_is_looked_at(tmp_path: Path) -> None:
    environ = {
        "MLFLOW_BACKEND_STORE_URI": "postgresql://db/a",
        "MLFLOW_REGISTRY_STORE_URI": "postgresql://db/b",
        "MLFLOW_READ_REPLICA_BACKEND_STORE_URI": "postgresql://replica/a",
    }
    plan = plan_for(tmp_path, environ=environ)
    assert [store.text for store in plan.stores] == list(environ.values())


@pytest.mark.parametrize(
    ("uri", "on_network", "wal"),
    [
        ("sqlite:///my.db", False, True),
        ("sqlite:///my.db", True, False),
        ("postgresql://db/x", False, False),
    ],
)
def test_wal_only_for_sqlite_on_a_local_disk(
    tmp_path: Path, uri: str, on_network: bool, wal: bool
) -> None:
    facts = Facts(usable_cores=2, store_on_network=on_network)
    plan = plan_for(tmp_path, environ={"MLFLOW_BACKEND_STORE_URI": uri}, facts=facts)
    assert plan.wal is wal


def test_a_plugins_destination_is_understood(tmp_path: Path) -> None:
    from mlflow_server.settings.kinds import installed_artifact_schemes

    facts = Facts(usable_cores=2, plugin_schemes=installed_artifact_schemes())
    plan = plan_for(tmp_path, environ={"MLFLOW_ARTIFACTS_DESTINATION": "s3://b/a"}, facts=facts)
    assert plan.destination.scheme is ArtifactScheme.S3


def test_the_plan_shows_no_secret(tmp_path: Path) -> None:
    environ = {
        "MLFLOW_BACKEND_STORE_URI": f"postgresql://u:{SECRET}@db/x",
        "MLFLOW_REGISTRY_STORE_URI": f"postgresql://u:{SECRET}@db/y",
        "MLFLOW_ARTIFACTS_DESTINATION": f"sftp://u:{SECRET}@host/x",
    }
    assert SECRET not in repr(plan_for(tmp_path, environ=environ))


# Warnings


def warnings_for(folder: Path, *flags: str, facts: Facts = FACTS, **environ: str) -> list[str]:
    return list(plan_for(folder, environ=environ, flags=flags, facts=facts).warnings)


def test_a_password_on_the_command_line_is_warned_about(tmp_path: Path) -> None:
    options = {"MLFLOW_BACKEND_STORE_URI": f"postgresql://u:{SECRET}@db/x"}
    (warning,) = make_plan(load(tmp_path, options=options), FACTS).warnings
    assert "password on the command line" in warning
    assert "MLFLOW_BACKEND_STORE_URI" in warning
    assert SECRET not in warning


@pytest.mark.parametrize("uri", ["postgresql://u@db/x", "sqlite:///my.db"])
def test_a_uri_without_password_may_be_an_option(tmp_path: Path, uri: str) -> None:
    options = {"MLFLOW_BACKEND_STORE_URI": uri}
    assert make_plan(load(tmp_path, options=options), FACTS).warnings == ()


def test_a_password_in_the_destination_on_the_command_line_is_warned_about(tmp_path: Path) -> None:
    options = {"MLFLOW_ARTIFACTS_DESTINATION": f"sftp://u:{SECRET}@host/x"}
    (warning,) = make_plan(load(tmp_path, options=options), FACTS).warnings
    assert "password on the command line" in warning
    assert SECRET not in warning


def test_a_password_from_the_environment_is_not_warned_about(tmp_path: Path) -> None:
    uri = f"postgresql://u:{SECRET}@db/x"
    assert warnings_for(tmp_path, MLFLOW_BACKEND_STORE_URI=uri) == []


def test_unknown_flags_of_the_platform_are_named(tmp_path: Path) -> None:
    (warning,) = warnings_for(tmp_path, f"{P}future={SECRET}", f"{P}host=h")
    assert "--anaconda-project-future" in warning
    assert SECRET not in warning


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("MLFLOW_SERVER_ALLOWED_HOSTS", "every Host header is accepted"),
        ("MLFLOW_SERVER_CORS_ALLOWED_ORIGINS", "every web origin may call"),
        ("TRACKING_SERVER_FRAME_ANCESTORS", "every website may show"),
    ],
)
def test_a_star_of_the_operator_is_taken_with_a_warning(
    tmp_path: Path, name: str, words: str
) -> None:
    (warning,) = warnings_for(tmp_path, facts=FACTS, **{name: "*"})
    assert words in warning


def test_a_platform_without_host_names_is_warned_about(tmp_path: Path) -> None:
    (warning,) = warnings_for(tmp_path, f"{P}port=8086")
    assert "named no host" in warning
    url = "https://mlflow.example.com"
    assert warnings_for(tmp_path, f"{P}port=8086", TRACKING_SERVER_PUBLIC_URL=url) == []


def test_data_in_a_project_folder_that_is_forgotten_is_warned_about(tmp_path: Path) -> None:
    facts = Facts(usable_cores=2, project_dir=tmp_path)
    environ = {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path}/data/my.db",
        "MLFLOW_ARTIFACTS_DESTINATION": f"{tmp_path}/data/artifacts",
    }
    warnings = warnings_for(tmp_path, f"{P}host=h", facts=facts, **environ)
    assert ["MLFLOW_BACKEND_STORE_URI" in w or "MLFLOW_ARTIFACTS_DESTINATION" in w for w in warnings
            ] == [True, True]  # fmt: skip
    assert warnings_for(tmp_path, facts=facts, **environ) == []  # nothing is forgotten on a machine


def test_data_outside_the_project_folder_is_fine(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    facts = Facts(usable_cores=2, project_dir=tmp_path / "project")
    environ = {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path}/my.db",
        "MLFLOW_ARTIFACTS_DESTINATION": "s3://bucket/a",
    }
    assert warnings_for(tmp_path, f"{P}host=h", facts=facts, **environ) == []


def test_a_network_file_system_is_warned_about(tmp_path: Path) -> None:
    facts = Facts(usable_cores=2, store_on_network=True, artifacts_on_network=True)
    warnings = warnings_for(tmp_path, facts=facts)
    assert ["SQLite's locks" in w or "expect it slow" in w for w in warnings] == [True, True]


# The environment for MLflow


def test_mlflow_gets_drivers_spelled_out_and_sqlite_as_written(tmp_path: Path) -> None:
    plan = plan_for(tmp_path, environ={"MLFLOW_BACKEND_STORE_URI": "postgresql://db/x"})
    assert mlflow_uri(plan.store) == f"postgresql+{require_driver(plan.store)}://db/x"
    named = plan_for(tmp_path, environ={"MLFLOW_BACKEND_STORE_URI": "postgresql+psycopg://db/x"})
    assert mlflow_uri(named.store) == "postgresql+psycopg://db/x"
    assert mlflow_uri(plan_for(tmp_path).store).startswith("sqlite:///data/")


def test_telemetry_is_off_in_the_server(tmp_path: Path) -> None:
    environment = server_environment(plan_for(tmp_path))
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert environment["DO_NOT_TRACK"] == "true"
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


def test_the_environment_holds_only_text_without_nul(tmp_path: Path) -> None:
    environ = {
        "MLFLOW_REGISTRY_STORE_URI": "postgresql+psycopg://db/y",
        "MLFLOW_READ_REPLICA_BACKEND_STORE_URI": "postgresql+psycopg://replica/x",
        "TRACKING_SERVER_FRAME_ANCESTORS": "a.example.com",
        "TRACKING_SERVER_PUBLIC_URL": "https://mlflow.example.com",
    }
    environment = server_environment(plan_for(tmp_path, environ=environ))
    assert all(isinstance(v, str) and v and "\0" not in v for v in environment.values())
    assert environment["_MLFLOW_SERVER_REGISTRY_STORE"] == "postgresql+psycopg://db/y"
    replica = environment["_MLFLOW_SERVER_READ_REPLICA_BACKEND_STORE"]
    assert replica == "postgresql+psycopg://replica/x"
    assert environment["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] == "https://mlflow.example.com"


@pytest.mark.parametrize(("frames", "expected"), [("", None), ("a.example.com", "NONE")])
def test_mlflow_leaves_frames_to_us_only_when_there_are_any(
    tmp_path: Path, frames: str, expected: str | None
) -> None:
    plan = plan_for(tmp_path, environ={"TRACKING_SERVER_FRAME_ANCESTORS": frames})
    assert server_environment(plan).get("MLFLOW_SERVER_X_FRAME_OPTIONS") == expected
