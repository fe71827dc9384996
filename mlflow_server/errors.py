"""What can go wrong, and the exit code that says so. Pure."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command; `docs/commands.md` lists them for operators."""

    OK = 0
    FAILED = 1
    USAGE = 2
    ATTENTION = 3
    SCHEMA = 4
    BAD_INPUT = 65
    UNAVAILABLE = 69
    INTERNAL = 70
    BUSY = 75
    NOT_PERMITTED = 77
    SETTINGS = 78
    INTERRUPTED = 130
    TERMINATED = 143

    @property
    def meaning(self) -> str:
        """One line for an operator, as printed by `help exit-codes`."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.OK: "done, or nothing to do",
    ExitCode.FAILED: "failed; the target is as it was before",
    ExitCode.USAGE: "wrong usage: unknown command or option, bad value of an option",
    ExitCode.ATTENTION: "finished, but something needs attention; see the report",
    ExitCode.SCHEMA: "the store's schema does not fit this release",
    ExitCode.BAD_INPUT: "input cannot be used: damaged archive, corrupt database file",
    ExitCode.UNAVAILABLE: "something needed cannot be reached: store, destination, port",
    ExitCode.INTERNAL: "unexpected, or a change could not be undone; needs a person",
    ExitCode.BUSY: "another operation holds the lock; try again later",
    ExitCode.NOT_PERMITTED: "not permitted: wrong credentials, not writable",
    ExitCode.SETTINGS: "settings missing or wrong",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C after a clean stop",
    ExitCode.TERMINATED: "interrupted by SIGTERM after a clean stop",
}


class OpsError(Exception):
    """An error that an operator can act on.

    Args:
        message: What was attempted, on which object, and why it failed. Never holds a secret.
        hint: What to do next, usually a command to type.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(OpsError):
    """A command line that cannot be meant."""

    exit_code = ExitCode.USAGE


class SettingsError(OpsError):
    """Settings are missing or wrong; all problems at once.

    Args:
        problems: One line each: setting, where it came from, what is wrong, what to write instead.
        hint: What to do next.
        exit_code: `USAGE` when the command line alone is wrong.
    """

    exit_code = ExitCode.SETTINGS

    def __init__(
        self,
        problems: list[str],
        *,
        hint: str | None = None,
        exit_code: ExitCode = ExitCode.SETTINGS,
    ) -> None:
        super().__init__("\n".join(problems), hint=hint)
        self.problems = problems
        self.exit_code = exit_code


class SchemaError(OpsError):
    """The store's schema revision does not fit this release."""

    exit_code = ExitCode.SCHEMA


class BadInputError(OpsError):
    """Input that cannot be used, such as a corrupt database file."""

    exit_code = ExitCode.BAD_INPUT


class DamagedError(BadInputError):
    """Input is not any more what it was when it was looked at before."""


class ChangedError(OpsError):
    """A content was changed while it was read, or is not what was promised."""


class VanishedError(OpsError):
    """A file is not there, or not there any more."""


class UnavailableError(OpsError):
    """Something needed cannot be reached."""

    exit_code = ExitCode.UNAVAILABLE


class NotFoundError(UnavailableError):
    """What is named is not there."""


class BusyError(OpsError):
    """Another operation holds the lock."""

    exit_code = ExitCode.BUSY


class PermissionDeniedError(OpsError):
    """Credentials are refused or something is not writable."""

    exit_code = ExitCode.NOT_PERMITTED


class InternalError(OpsError):
    """Unexpected; needs a person."""

    exit_code = ExitCode.INTERNAL
