"""What the platform tells a command by `--anaconda-project-*` flags. Pure.

Source: anaconda-project's `supports_http_options`: these flags are appended to a command line, any
of them may be missing, `--f v` and `--f=v` are both legal (`facts` of AE5, section 5).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

_PREFIX = "--anaconda-project-"
_SWITCHES = frozenset({"no-browser", "use-xheaders"})
_FALSE = frozenset({"false", "0", "no", "off"})


@dataclass(frozen=True)
class PlatformFlags:
    """The flags of one command line.

    Args:
        present: True when there was any flag: the command runs on a platform.
        address: Address to listen on.
        port: Port as given; checked with the other settings.
        hosts: Public host names, each perhaps with a port.
        url_prefix: Path under which the platform publishes the server.
        iframe_hosts: Hosts whose pages may show the UI in a frame, separated by spaces.
        use_xheaders: A proxy in front sets X-Forwarded-*.
        unknown: Names of flags this release does not know, without their values.
    """

    present: bool = False
    address: str | None = None
    port: str | None = None
    hosts: tuple[str, ...] = ()
    url_prefix: str | None = None
    iframe_hosts: tuple[str, ...] = ()
    use_xheaders: bool = False
    unknown: tuple[str, ...] = ()

    @classmethod
    def take_from(cls, arguments: Sequence[str]) -> tuple[Self, list[str]]:
        """Split a command line into the platform's flags and everything else.

        Args:
            arguments: The command line without the program name.

        Returns:
            The flags, and the other arguments in their order. What follows `--` is left alone.
        """
        values: dict[str, list[str]] = {}
        rest: list[str] = []
        queue = list(arguments)
        while queue:
            argument = queue.pop(0)
            if argument == "--":
                rest += [argument, *queue]
                break
            if not argument.startswith(_PREFIX):
                rest.append(argument)
                continue
            name, equals, value = argument.removeprefix(_PREFIX).partition("=")
            if not equals and name not in _SWITCHES and queue and not queue[0].startswith("-"):
                value = queue.pop(0)
            values.setdefault(name, []).append(value)
        return cls._from_values(values), rest

    @classmethod
    def _from_values(cls, values: dict[str, list[str]]) -> Self:
        def last(name: str) -> str | None:
            given = [value for value in values.get(name, []) if value]
            return given[-1] if given else None

        def words(name: str) -> tuple[str, ...]:
            return tuple(
                word for value in values.get(name, []) for word in value.replace(",", " ").split()
            )

        known = {"address", "port", "host", "url-prefix", "iframe-hosts", *_SWITCHES}
        return cls(
            present=bool(values),
            address=last("address"),
            port=last("port"),
            hosts=words("host"),
            url_prefix=last("url-prefix"),
            iframe_hosts=words("iframe-hosts"),
            use_xheaders="use-xheaders" in values
            and values["use-xheaders"][-1].lower() not in _FALSE,
            unknown=tuple(sorted(set(values) - known)),
        )
