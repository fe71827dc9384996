"""The documentation as a test sees it: blocks of commands, and what they are said to print."""

from __future__ import annotations

import re
import subprocess
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^( *)```(\w*)$")
_REASON = re.compile(r"^ *<!-- not run: (.+) -->$")


@dataclass(frozen=True)
class Block:
    """Commands between two fences.

    Args:
        page: The file.
        line: Of the first fence, from 1.
        commands: One text for a shell.
        expected: What they print, line by line; `…` stands for anything.
        reason: Why no test can run them, as the comment above says.
    """

    page: Path
    line: int
    commands: str
    expected: tuple[str, ...] = ()
    reason: str | None = None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    def run(
        self, replace: Mapping[str, str], *, folder: Path, environment: Mapping[str, str]
    ) -> str:
        """Run the commands in bash, stop at the first that fails, and compare what they print.

        Args:
            replace: Placeholders and places of the page, and what a test has for them.
            folder: Where.
            environment: The whole environment.

        Returns:
            What they printed.
        """
        ended = subprocess.run(
            ["bash", "-eu", "-c", textwrap.dedent(_replaced(self.commands, replace))],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )
        assert ended.returncode == 0, f"{self}: exit {ended.returncode}\n{ended.stdout}"
        printed = iter(ended.stdout.splitlines())
        for line in self.expected:
            parts = _replaced(line, replace).split("…")
            pattern = ".*".join(re.escape(part) for part in parts)
            assert any(re.fullmatch(pattern, found) for found in printed), (
                f"{self}: {line!r} was not printed, or not in this order:\n{ended.stdout}"
            )
        return ended.stdout


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of commands of a page: ```sh, and ```console with commands behind `$ `.

    A ```text block that follows before the next heading or commands is what they print.
    """
    found: Block | None = None
    reason: str | None = None
    fence: tuple[str, str, int] | None = None
    inside: list[str] = []
    for number, line in enumerate(page.read_text("utf-8").splitlines(), start=1):
        if fence is None:
            if match := _REASON.match(line):
                reason = match[1]
            elif match := _FENCE.match(line):
                fence, inside = (match[1], match[2], number), []
            elif line.startswith("#") and found is not None:
                yield found
                found = None
            elif line.strip():
                reason = None
            continue
        indent, language, start = fence
        if line != f"{indent}```":
            inside.append(line.removeprefix(indent))
            continue
        fence = None
        if language in ("sh", "console"):
            if found is not None:
                yield found
            found = _block(page, start, language, inside, reason)
        elif language == "text" and found is not None and not found.expected:
            found = Block(page, found.line, found.commands, tuple(inside), found.reason)
        reason = None
    if found is not None:
        yield found


def _block(page: Path, line: int, language: str, inside: list[str], reason: str | None) -> Block:
    if language == "sh":
        return Block(page, line, "\n".join(inside), reason=reason)
    commands = [text.removeprefix("$ ") for text in inside if text.startswith("$ ")]
    expected = tuple(text for text in inside if not text.startswith("$ "))
    return Block(page, line, "\n".join(commands), expected, reason)


def _replaced(text: str, replace: Mapping[str, str]) -> str:
    for old, new in replace.items():
        text = text.replace(old, new)
    return text
