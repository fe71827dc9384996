"""Write the pins of `requirements/runtime.txt` into `anaconda-project.yml`; `--check` compares.

The platform installs with conda and pip and knows no lock files, so each env spec lists the pins
between two marker comments. `scripts/lock` runs this. Touches these two files only.
"""

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "runtime.txt"
PROJECT_FILE = ROOT / "anaconda-project.yml"

# Direct requirements that an env spec does without; what only they bring is left out with them.
LEFT_OUT: dict[str, frozenset[str]] = {
    "default": frozenset(),
    "minimum": frozenset({"boto3", "psycopg", "psycopg2-binary"}),
}

# Where the pins are installed: the one platform and interpreter of the env specs.
LINUX_64 = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.11.0",
    "python_version": "3.11",
    "sys_platform": "linux",
}

_PIN = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9.-]*)==(?P<version>[^ ;\\]+)( ; (?P<marker>[^\\]+?))? *\\?"
)
_VIA = re.compile(r"    # (via)?(?P<parent>.*)")
_PROJECT = re.compile(r"mlflow-tracking-server .*")
_BLOCK = re.compile(
    r"(?P<begin>^(?P<indent> *)# begin pins: (?P<spec>\w+)[^\n]*\n).*?(?P<end>^ *# end pins$)",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Pin:
    """One package of the lock, as it is on linux-64.

    Args:
        version: The locked version.
        parents: Names of the packages that require it; "" stands for the project itself.
    """

    version: str
    parents: frozenset[str]


def read_lock(text: str) -> dict[str, Pin]:
    """Read what `uv pip compile` wrote.

    Args:
        text: A lock with its "# via" comments.

    Returns:
        Pins by normalised name, in the order of the lock, without those for other platforms.

    Raises:
        ValueError: A package is pinned twice for linux-64.
    """
    versions: dict[str, str] = {}
    parents: dict[str, set[str]] = {}
    current: set[str] = set()
    for line in text.splitlines():
        if pin := _PIN.fullmatch(line):
            current = set()
            marker = pin["marker"]
            if marker and not Marker(marker).evaluate(dict(LINUX_64)):
                continue
            name = pin["name"]
            if name in versions:
                raise ValueError(f"{name} is pinned twice")
            versions[name] = pin["version"]
            parents[name] = current
        elif (via := _VIA.fullmatch(line)) and (parent := via["parent"].strip()):
            current.add("" if _PROJECT.fullmatch(parent) else parent)
    return {name: Pin(versions[name], frozenset(parents[name])) for name in versions}


def pins_without(lock: dict[str, Pin], left_out: frozenset[str]) -> list[str]:
    """Choose what is installed when some direct requirements are left out.

    Args:
        lock: Pins by name.
        left_out: Names of direct requirements.

    Returns:
        `name==version`, in the order of the lock: all that the project reaches by its other
        requirements. The build backend is not reached; the platform builds nothing.

    Raises:
        ValueError: A name is no direct requirement, or another package requires it too.
    """
    for name in left_out:
        if name not in lock or "" not in lock[name].parents:
            raise ValueError(f"{name} is no direct requirement in {LOCK.name}")
    reached: set[str] = set()
    grew = True
    while grew:
        grew = False
        for name, pin in lock.items():
            wanted = pin.parents & reached or ("" in pin.parents and name not in left_out)
            if name not in reached and wanted:
                reached.add(name)
                grew = True
    if kept := left_out & reached:
        raise ValueError(f"{', '.join(sorted(kept))} cannot be left out: another package needs it")
    return [f"{name}=={pin.version}" for name, pin in lock.items() if name in reached]


def rewrite(project_file: str, lock: dict[str, Pin]) -> str:
    """Replace the pins between the marker comments.

    Args:
        project_file: Text of `anaconda-project.yml`.
        lock: Pins by name.

    Returns:
        The text with the blocks of all env specs written anew; everything else as it was.

    Raises:
        ValueError: The blocks are not those of `LEFT_OUT`, one each.
    """
    found = [block["spec"] for block in _BLOCK.finditer(project_file)]
    if sorted(found) != sorted(LEFT_OUT):
        raise ValueError(f"{PROJECT_FILE.name} has pins for {found}, not {list(LEFT_OUT)}")

    def block_with_pins(block: re.Match[str]) -> str:
        pins = pins_without(lock, LEFT_OUT[block["spec"]])
        return "".join(
            [block["begin"], *(f"{block['indent']}- {pin}\n" for pin in pins), block["end"]]
        )

    return _BLOCK.sub(block_with_pins, project_file)


def main() -> int:
    """Write or compare; 1 when they differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, change nothing")
    options = parser.parse_args()
    before = PROJECT_FILE.read_text(encoding="utf-8")
    after = rewrite(before, read_lock(LOCK.read_text(encoding="utf-8")))
    if options.check and after != before:
        sys.stderr.write(f"Error: the pins of {PROJECT_FILE.name} differ from {LOCK.name}\n")
        sys.stderr.write("Try: scripts/lock\n")
        return 1
    if after != before:
        PROJECT_FILE.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
