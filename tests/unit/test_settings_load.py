"""Settings: where they come from, which source wins, how problems are told."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from mlflow_server.errors import ExitCode, SettingsError
from mlflow_server.settings.load import LoadedSettings, Source
from mlflow_server.settings.model import DEFAULT_SECRETS_DIR
from tests.unit.making import load

SECRET = "S3cr3tMarker"
PORTS = {
    Source.OPTION: "1001",
    Source.PLATFORM: "1002",
    Source.ENVIRONMENT: "1003",
    Source.SECRET: "1004",
    Source.PROJECT: "1005",
}


def load_port(folder: Path, sources: set[Source]) -> LoadedSettings:
    """MLFLOW_PORT given by some sources at once, a different value each."""

    def given(source: Source) -> dict[str, str]:
        return {"MLFLOW_PORT": PORTS[source]} if source in sources else {}

    flags = ["--anaconda-project-port", PORTS[Source.PLATFORM]]
    return load(
        folder,
        options=given(Source.OPTION),
        environ=given(Source.ENVIRONMENT),
        secrets=given(Source.SECRET),
        declared=given(Source.PROJECT) or {"OTHER": "x"},
        flags=flags if Source.PLATFORM in sources else (),
    )


# Order of sources


@pytest.mark.parametrize(
    "sources",
    [set(c) for n in range(1, 6) for c in itertools.combinations(PORTS, n)],
    ids=lambda sources: "+".join(source.name.lower() for source in PORTS if source in sources),
)
def test_the_strongest_source_wins(tmp_path: Path, sources: set[Source]) -> None:
    loaded = load_port(tmp_path, sources)
    strongest = next(source for source in PORTS if source in sources)
    assert loaded.settings.server.port == int(PORTS[strongest])
    assert loaded.source_of("MLFLOW_PORT") is strongest


def test_without_any_source_the_default_counts(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    assert loaded.settings.server.port == 5_000
    assert loaded.settings.server.host == "127.0.0.1"
    given = {name for name, source in loaded.sources.items() if source is not Source.DEFAULT}
    assert given == {"TRACKING_SERVER_SECRETS_DIR"}


def test_a_platform_changes_the_defaults_of_host_and_port(tmp_path: Path) -> None:
    loaded = load(tmp_path, flags=["--anaconda-project-no-browser"])
    assert loaded.settings.server.host == "0.0.0.0"  # noqa: S104 - as AE5 wants it
    assert loaded.settings.server.port == 8_086
    assert loaded.source_of("MLFLOW_PORT") is Source.DEFAULT


def test_the_platforms_flags_become_settings(tmp_path: Path) -> None:
    flags = ["--anaconda-project-address=10.0.0.1", "--anaconda-project-url-prefix", "/a/b/"]
    loaded = load(tmp_path, flags=flags)
    assert loaded.settings.server.host == "10.0.0.1"
    assert loaded.settings.server.url_prefix == "/a/b"
    assert loaded.source_of("MLFLOW_STATIC_PREFIX") is Source.PLATFORM


def test_a_value_equal_to_the_declared_default_counts_as_the_projects(tmp_path: Path) -> None:
    """The platform puts declared defaults into the environment; they must not hide a secret."""
    loaded = load(
        tmp_path,
        environ={"MLFLOW_PORT": "7000"},
        declared={"MLFLOW_PORT": "7000"},
        secrets={"MLFLOW_PORT": "7001"},
    )
    assert loaded.settings.server.port == 7_001
    assert loaded.source_of("MLFLOW_PORT") is Source.SECRET


def test_an_unchanged_declared_default_is_shown_as_the_projects(tmp_path: Path) -> None:
    loaded = load(tmp_path, environ={"MLFLOW_PORT": "7000"}, declared={"MLFLOW_PORT": "7000"})
    assert loaded.settings.server.port == 7_000
    assert loaded.source_of("MLFLOW_PORT") is Source.PROJECT


def test_a_changed_value_counts_as_the_operators(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        environ={"MLFLOW_PORT": "7002"},
        declared={"MLFLOW_PORT": "7000"},
        secrets={"MLFLOW_PORT": "7001"},
    )
    assert loaded.source_of("MLFLOW_PORT") is Source.ENVIRONMENT


@pytest.mark.parametrize("source", [Source.OPTION, Source.ENVIRONMENT, Source.SECRET])
def test_an_empty_value_counts_as_not_set(tmp_path: Path, source: Source) -> None:
    empty = {"MLFLOW_PORT": ""}
    loaded = load(
        tmp_path,
        options=empty if source is Source.OPTION else {},
        environ=empty if source is Source.ENVIRONMENT else {},
        secrets=empty if source is Source.SECRET else {},
        declared={"MLFLOW_PORT": "7000"},
    )
    assert loaded.settings.server.port == 7_000
    assert loaded.source_of("MLFLOW_PORT") is Source.PROJECT


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\n\n"])
def test_an_empty_line_counts_as_not_set(tmp_path: Path, newline: str) -> None:
    loaded = load(tmp_path, environ={"MLFLOW_PORT": newline}, secrets={"MLFLOW_HOST": newline})
    assert loaded.settings.server.port == 5_000
    assert loaded.source_of("MLFLOW_PORT") is Source.DEFAULT
    assert loaded.source_of("MLFLOW_HOST") is Source.DEFAULT


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_trailing_newline_is_stripped_from_every_source(tmp_path: Path, newline: str) -> None:
    loaded = load(
        tmp_path,
        options={"MLFLOW_PORT": f"7000{newline}"},
        environ={"MLFLOW_HOST": f"10.0.0.1{newline}"},
        secrets={"MLFLOW_TRACKING_TOKEN": f"{SECRET}{newline}"},
    )
    token = loaded.settings.client.tracking_token
    assert loaded.settings.server.port == 7_000
    assert loaded.settings.server.host == "10.0.0.1"
    assert token is not None
    assert token.get_secret_value() == SECRET
    assert SECRET in loaded.secret_values


def test_no_other_white_space_is_stripped(tmp_path: Path) -> None:
    loaded = load(tmp_path, secrets={"MLFLOW_TRACKING_TOKEN": f" {SECRET} \t\n"})
    token = loaded.settings.client.tracking_token
    assert token is not None
    assert token.get_secret_value() == f" {SECRET} \t"


# The project file


def test_the_project_file_is_found_by_project_dir(tmp_path: Path) -> None:
    from mlflow_server.settings.load import load_settings
    from tests.unit.making import write_project

    write_project(tmp_path, {"MLFLOW_PORT": "7000"})
    environ = {"PROJECT_DIR": str(tmp_path), "TRACKING_SERVER_SECRETS_DIR": str(tmp_path / "none")}
    assert load_settings(environ=environ).source_of("MLFLOW_PORT") is Source.PROJECT


@pytest.mark.parametrize(
    "text",
    ["", "just text", "- a\n- list", "variables: 3", "variables:\n  - MLFLOW_PORT", "name: x"],
)
def test_a_project_file_that_declares_nothing_is_fine(tmp_path: Path, text: str) -> None:
    (tmp_path / "anaconda-project.yml").write_text(text, "utf-8")
    assert load(tmp_path).settings.server.port == 5_000


@pytest.mark.parametrize(
    "entry", ["7000", "'7000'", "{default: 7000}", "{default: '7000', description: a port}"]
)
def test_declared_defaults_in_every_form(tmp_path: Path, entry: str) -> None:
    text = f"variables:\n  MLFLOW_PORT: {entry}\n  MLFLOW_HOST: null\n  MLFLOW_WORKERS: {{}}\n"
    (tmp_path / "anaconda-project.yml").write_text(text, "utf-8")
    loaded = load(tmp_path, environ={"MLFLOW_PORT": "7000"})
    assert loaded.source_of("MLFLOW_PORT") is Source.PROJECT
    assert loaded.source_of("MLFLOW_HOST") is Source.DEFAULT


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe", b"a: b: c"])
def test_a_project_file_that_cannot_be_read_is_a_problem(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "anaconda-project.yml").write_bytes(content)
    with pytest.raises(SettingsError, match=r"anaconda-project\.yml: cannot be read") as caught:
        load(tmp_path)
    assert caught.value.exit_code is ExitCode.SETTINGS


def test_the_shipped_project_file_declares_only_what_code_defaults_to() -> None:
    """A default that differs would change behaviour between pip and the platform."""
    import yaml

    from mlflow_server.settings.model import iter_definitions

    path = Path(__file__).parents[2] / "anaconda-project.yml"
    variables = yaml.safe_load(path.read_text("utf-8"))["variables"]
    defaults = {entry.setting.name: entry.default_text for entry in iter_definitions()}
    assert variables
    for name, entry in variables.items():
        assert entry["default"] == defaults[name]


# Problems


def problems_of(folder: Path, **sources: dict[str, str]) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load(folder, **sources)  # type: ignore[arg-type]
    return caught.value


def test_tells_all_problems_at_once_each_with_its_source(tmp_path: Path) -> None:
    error = problems_of(
        tmp_path,
        options={"MLFLOW_PORT": "70000"},
        environ={"MLFLOW_WORKERS": "many", "MLFLOW_BACKEND_STORE_URI": "mlruns"},
        secrets={"MLFLOW_TRACKING_GC_TTL": "30"},
        declared={"TRACKING_SERVER_LOG_FORMAT": "xml"},
    )
    starts = [problem.split(": ")[0] for problem in error.problems]
    assert sorted(starts) == [
        "--port",
        "MLFLOW_BACKEND_STORE_URI (environment)",
        "MLFLOW_TRACKING_GC_TTL (secret)",
        "MLFLOW_WORKERS (environment)",
        "TRACKING_SERVER_LOG_FORMAT (anaconda-project.yml)",
    ]
    assert all("\n" not in problem for problem in error.problems)
    assert error.exit_code is ExitCode.SETTINGS
    assert error.hint


def test_only_wrong_options_are_wrong_usage(tmp_path: Path) -> None:
    error = problems_of(tmp_path, options={"MLFLOW_PORT": "0", "MLFLOW_WORKERS": "0"})
    assert len(error.problems) == 2
    assert error.exit_code is ExitCode.USAGE


def test_the_platforms_flags_are_no_usage_of_the_operator(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^MLFLOW_PORT \(platform flag\)") as caught:
        load(tmp_path, flags=["--anaconda-project-port=http"])
    assert caught.value.exit_code is ExitCode.SETTINGS


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("MLFLOW_PORT", "0", "must be at least 1"),
        ("MLFLOW_PORT", "65536", "must be at most 65535"),
        ("MLFLOW_PORT", "5000.5", "must be a whole number"),
        ("MLFLOW_PORT", "http", "must be a whole number"),
        ("MLFLOW_WORKERS", "65", "must be at most 64"),
        ("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "0", "must be at least 1"),
        ("TRACKING_SERVER_METRICS", "maybe", "must be true or false"),
        ("TRACKING_SERVER_LOG_FORMAT", "xml", "must be 'text' or 'json'"),
        ("TRACKING_SERVER_GRACEFUL_TIMEOUT", "25", "'25' is not a duration; write"),
        ("TRACKING_SERVER_GRACEFUL_TIMEOUT", "2h", "must be at most 1h"),
        ("TRACKING_SERVER_PUBLIC_URL", "mlflow.example.com", "is not an http(s) URL; write"),
        ("TRACKING_SERVER_PUBLIC_URL", "https://u:p@h", "must not hold credentials"),
        ("TRACKING_SERVER_PUBLIC_URL", "https://h:port", "is not an http(s) URL"),
        ("TRACKING_SERVER_PUBLIC_URL", "https://", "is not an http(s) URL"),
        ("MLFLOW_STATIC_PREFIX", "/a/../b", "is not a plain path; write"),
        ("MLFLOW_STATIC_PREFIX", "/a b", "is not a plain path"),
        ("MLFLOW_STATIC_PREFIX", "/a//b", "is not a plain path"),
        ("TRACKING_SERVER_TRUSTED_PROXIES", "10.0.0.0/8, proxy", "holds 'proxy'"),
        ("MLFLOW_BACKEND_STORE_URI", "postgres://h/db", "write postgresql://"),
        ("MLFLOW_ARTIFACTS_DESTINATION", "s4://b", "no artifact repository"),
    ],
)
def test_says_what_is_wrong_and_what_to_write(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    error = problems_of(tmp_path, environ={name: text})
    assert len(error.problems) == 1
    assert error.problems[0].startswith(f"{name} (environment): ")
    assert words in error.problems[0]


def test_a_value_out_of_the_units_of_its_setting_is_told_in_them(tmp_path: Path) -> None:
    """`must be at most 1h` is no help to who wrote 2h."""
    error = problems_of(tmp_path, environ={"TRACKING_SERVER_KEEP_ALIVE": "2h"})
    assert "1h" in error.problems[0]


@pytest.mark.parametrize("name", ["MLFLOW_BACKEND_STORE_URI", "MLFLOW_REGISTRY_STORE_URI"])
@pytest.mark.parametrize(
    "text",
    [
        f"oracle://u:{SECRET}@db/x",
        f"postgres://u:{SECRET}@db/x",
        f"postgresql://u:{SECRET}@db:70000/x",
        f"postgresql+nodriver://u:{SECRET}@db/x",
        f"postgresql://u:{SECRET}@db",
        SECRET,
        f"u:{SECRET}@db",
    ],
)
def test_no_problem_repeats_a_secret(tmp_path: Path, name: str, text: str) -> None:
    for number, source in enumerate(("options", "environ", "secrets", "declared")):
        folder = tmp_path / str(number)
        folder.mkdir()
        error = problems_of(folder, **{source: {name: text}})
        shown = f"{error} {error!r} {error.problems} {error.hint} {error.__cause__!r}"
        assert SECRET not in shown


def test_nothing_that_was_loaded_shows_a_secret(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        environ={
            "MLFLOW_BACKEND_STORE_URI": f"postgresql://u:{SECRET}@db/x",
            "MLFLOW_ARTIFACTS_DESTINATION": f"sftp://u:{SECRET}@host/x",
        },
        secrets={"MLFLOW_TRACKING_TOKEN": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET},
    )
    assert SECRET not in repr(loaded)
    assert SECRET not in str(loaded)
    assert SECRET not in repr(loaded.settings.client)
    assert SECRET not in repr(loaded.settings.store)


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"])
def test_the_password_of_a_tracking_uri_is_known_as_a_secret(tmp_path: Path, name: str) -> None:
    loaded = load(tmp_path, environ={name: f"https://ops:{SECRET}@mlflow.example.com"})
    assert SECRET in loaded.secret_values


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    from pydantic import ValidationError

    loaded = load(tmp_path)
    with pytest.raises(ValidationError, match="frozen"):
        loaded.settings.server.port = 1


def test_the_default_secrets_folder_is_that_of_ae5(tmp_path: Path) -> None:
    from mlflow_server.settings.load import load_settings

    assert Path("/var/run/secrets/user_credentials") == DEFAULT_SECRETS_DIR
    loaded = load_settings(environ={}, project_dir=tmp_path)
    assert loaded.settings.secrets.directory == DEFAULT_SECRETS_DIR


def test_text_that_is_no_unicode_is_a_problem_that_names_the_setting(tmp_path: Path) -> None:
    """Python shows undecodable bytes of the environment as lone surrogates."""
    broken = b"\xff\xfe".decode("utf-8", errors="surrogateescape")
    error = problems_of(
        tmp_path, environ={"MLFLOW_HOST": broken, "MLFLOW_TRACKING_TOKEN": SECRET + broken}
    )
    assert [problem.split(":")[0] for problem in error.problems] == [
        "MLFLOW_HOST (environment)",
        "MLFLOW_TRACKING_TOKEN (environment)",
    ]
    assert SECRET not in str(error)


def test_a_nul_in_a_value_is_a_problem_that_names_the_setting(tmp_path: Path) -> None:
    error = problems_of(tmp_path, options={"MLFLOW_HOST": "a\0b"})
    assert error.problems == ["--host: holds a NUL byte"]
