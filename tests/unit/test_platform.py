"""The platform's flags are taken off a command line wherever they stand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_server.platform import PlatformFlags

P = "--anaconda-project-"
ANY = "0.0.0.0"  # noqa: S104 - what AE5 passes
NAMES = ["address", "port", "host", "url-prefix", "iframe-hosts"]


def take(*arguments: str) -> PlatformFlags:
    flags, rest = PlatformFlags.take_from(arguments)
    assert rest == []
    return flags


def test_reads_what_ae5_passes() -> None:
    flags, rest = PlatformFlags.take_from(
        [
            "serve",
            f"{P}host",
            "mlflow.example.com",
            f"{P}port=8086",
            f"{P}address",
            ANY,
            f"{P}iframe-hosts=anaconda.example.com *.example.com",
            f"{P}no-browser",
            f"{P}use-xheaders",
            f"{P}url-prefix",
            "/mlflow",
            "--json",
        ]
    )
    assert rest == ["serve", "--json"]
    assert flags == PlatformFlags(
        present=True,
        address=ANY,
        port="8086",
        hosts=("mlflow.example.com",),
        url_prefix="/mlflow",
        iframe_hosts=("anaconda.example.com", "*.example.com"),
        use_xheaders=True,
    )


def test_no_flag_means_no_platform() -> None:
    assert PlatformFlags.take_from(["serve", "--port", "5000"]) == (
        PlatformFlags(),
        ["serve", "--port", "5000"],
    )


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_mean_the_same(name: str) -> None:
    assert take(f"{P}{name}=value") == take(f"{P}{name}", "value")


def test_host_is_repeatable_and_may_hold_ports_and_commas() -> None:
    flags = take(f"{P}host", "a.example.com:443", f"{P}host=b.example.com,c.example.com d")
    assert flags.hosts == ("a.example.com:443", "b.example.com", "c.example.com", "d")


@pytest.mark.parametrize("name", ["address", "port", "url-prefix"])
def test_the_last_of_a_single_value_counts(name: str) -> None:
    assert take(f"{P}{name}=first", f"{P}{name}", "last") == take(f"{P}{name}=last")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", [[""], ["="]])
def test_a_flag_without_value_is_present_but_says_nothing(name: str, form: list[str]) -> None:
    flags = take(f"{P}{name}{form[0]}")
    assert flags == PlatformFlags(present=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_value_that_looks_like_an_option_is_left_to_the_command(name: str) -> None:
    flags, rest = PlatformFlags.take_from([f"{P}{name}", "--json"])
    assert (flags, rest) == (PlatformFlags(present=True), ["--json"])


@pytest.mark.parametrize("switch", ["no-browser", "use-xheaders"])
def test_switches_take_no_value_from_the_command_line(switch: str) -> None:
    flags, rest = PlatformFlags.take_from([f"{P}{switch}", "serve"])
    assert flags.present
    assert rest == ["serve"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("=true", True),
        ("=1", True),
        ("=false", False),
        ("=False", False),
        ("=0", False),
    ],
)
def test_use_xheaders_may_be_switched_off(text: str, expected: bool) -> None:
    assert take(f"{P}use-xheaders{text}").use_xheaders is expected


def test_unknown_flags_are_named_without_their_values() -> None:
    flags, rest = PlatformFlags.take_from(
        [f"{P}future", "S3cr3tMarker", f"{P}token=S3cr3tMarker", f"{P}future", "serve"]
    )
    assert flags.unknown == ("future", "token")
    assert flags.present
    assert "S3cr3tMarker" not in repr(flags)
    assert rest == []  # nobody can tell whether an unknown flag takes a value


def test_leaves_alone_what_follows_two_dashes() -> None:
    flags, rest = PlatformFlags.take_from([f"{P}port=1", "x", "--", f"{P}port=2", "--", "y"])
    assert flags.port == "1"
    assert rest == ["x", "--", f"{P}port=2", "--", "y"]


plain = st.text(min_size=1, max_size=10).filter(
    lambda word: not word.startswith(P) and word != "--"
)
known = st.tuples(st.sampled_from(NAMES), st.text(max_size=10)).map(lambda p: f"{P}{p[0]}={p[1]}")


@given(st.lists(st.one_of(plain, known)))
def test_everything_else_keeps_its_order(arguments: list[str]) -> None:
    flags, rest = PlatformFlags.take_from(arguments)
    assert rest == [argument for argument in arguments if not argument.startswith(P)]
    assert flags.present is (len(rest) < len(arguments))
    assert flags.unknown == ()


@given(st.lists(st.text(max_size=30)))
def test_never_fails_whatever_the_command_line(arguments: list[str]) -> None:
    PlatformFlags.take_from(arguments)
    PlatformFlags.take_from([P + argument for argument in arguments])
