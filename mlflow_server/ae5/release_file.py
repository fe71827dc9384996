"""`release.yml`: what a site wants on the platform. No secrets: dev and production differ by it."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from mlflow_server.ae5.contents import PROJECT
from mlflow_server.ae5.cron import require_cron
from mlflow_server.ae5.names import require_endpoint, require_name, require_secret_name
from mlflow_server.errors import OpsError, SettingsError, UnavailableError
from mlflow_server.settings.secrets import require_no_secret

FILE = "release.yml"
_LARGEST_BYTES = 1024 * 1024


def _judged(judge: Any) -> AfterValidator:
    """What another part refuses is a problem of the file."""

    def check(value: str) -> str:
        try:
            return str(judge(value))
        except OpsError as err:
            raise ValueError(err.message) from None

    return AfterValidator(check)


def _without_secrets(values: dict[str, str]) -> dict[str, str]:
    for name, value in values.items():
        try:
            require_no_secret("variables", name, value)
        except OpsError as err:
            raise ValueError(err.message) from None
    return values


Name = Annotated[str, _judged(lambda value: require_name(value, "name"))]
EndpointName = Annotated[str, _judged(require_endpoint)]
SecretName = Annotated[str, _judged(require_secret_name)]
Cron = Annotated[str, _judged(require_cron)]
Variables = Annotated[dict[str, str], AfterValidator(_without_secrets)]
Scheduled = Literal["gc", "backup"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class JobFile(_Part):
    """How a command runs as a job.

    Args:
        variables: Settings for its runs, none of them secret.
        resource_profile: None for the project's own.
    """

    variables: Variables = Field(default_factory=dict)
    resource_profile: str | None = None


class ScheduleFile(JobFile):
    """When a command runs.

    Args:
        cron: Five plain fields, UTC.
    """

    cron: Cron


class ShareFile(_Part):
    """Who may open the server in a browser, besides the account.

    Args:
        everyone: All who can sign in.
        groups: By name.
        users: By name.
    """

    everyone: bool = False
    groups: tuple[str, ...] = ()
    users: tuple[str, ...] = ()


class ReleaseFile(_Part):
    """A release as a site wants it.

    Args:
        project: What the project is called.
        deployment: What the deployment is called.
        endpoint: Of its address; a DNS label.
        resource_profile: None for the platform's default.
        variables: Of `anaconda-project.yml`, as `ae5 build --set`.
        packages: As `ae5 build --add-package`.
        secrets: Names that have to be there before a server starts.
        share: Who may open it.
        schedules: What runs by the clock.
        upgrade: How `ae5 release --upgrade` runs DatabaseUpgrade.
        restore: How `ae5 release --restore` runs Restore.
    """

    project: Name = PROJECT
    deployment: Name = "mlflow"
    endpoint: EndpointName = "mlflow"
    resource_profile: str | None = None
    variables: Variables = Field(default_factory=dict)
    packages: tuple[str, ...] = ()
    secrets: tuple[SecretName, ...] = ("MLFLOW_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_DESTINATION")
    share: ShareFile = Field(default_factory=ShareFile)
    schedules: dict[Scheduled, ScheduleFile] = Field(default_factory=dict)
    upgrade: JobFile = Field(default_factory=JobFile)
    restore: JobFile = Field(default_factory=JobFile)


def read_release_file(path: Path | None) -> ReleaseFile:
    """Read what a site wants.

    Args:
        path: Of the file; None for `release.yml` in this folder, or the defaults without one.

    Raises:
        SettingsError: It is wrong: all problems, a line each, without a value.
        UnavailableError: It cannot be read.
    """
    if path is None:
        path = Path(FILE)
        if not path.exists():
            return ReleaseFile()
    try:
        content = path.read_bytes()[:_LARGEST_BYTES]
        document = yaml.safe_load(content)
    except OSError as err:
        raise UnavailableError(f"{path}: cannot be read: {err.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise SettingsError([f"{path}: is not YAML"], hint=_HINT) from None
    try:
        return ReleaseFile.model_validate({} if document is None else document)
    except ValidationError as err:
        problems = [
            f"{path}: {'.'.join(map(str, each['loc'])) or 'the file'}: "
            + each["msg"].removeprefix("Value error, ")
            for each in err.errors(include_input=False, include_url=False)
        ]
        raise SettingsError(problems, hint=_HINT) from None


_HINT = "docs/runbooks/ae5.md explains each name"
