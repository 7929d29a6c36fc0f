# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Settings, read once: defaults < `helexa.toml` < `HELEXA_*` < flags.

A setting `socket` of the service `gateway` is `socket` in the table `[gateway]` of the file and
`HELEXA_GATEWAY_SOCKET` in the environment. A setting that several services have in common, such as
`data_dir`, may also stand at the top of the file and as `HELEXA_DATA_DIR`.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from typing_extensions import override

SettingsT = TypeVar("SettingsT", bound="ServiceSettings")

FILE_NAME = "helexa.toml"
ENVIRONMENT_PREFIX = "HELEXA_"
WELL_KNOWN_VARIABLES = {
    "nats_url": ("NATS_URL",),
    "hub_token": ("HF_TOKEN",),
    "hub_endpoint": ("HF_ENDPOINT",),
}
"""Variables of the field's other tools that are honoured where ours is not set."""


class SettingsError(Exception):
    """A setting is wrong; the message is one line that says which, where and what to do."""


class ServiceSettings(BaseModel):
    """What every service can be told."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True
    )
    section: ClassVar[str] = ""

    nats_url: tuple[str, ...] = ()
    """Servers of the site, comma-separated; empty: the ones in the data directory's site file."""
    nats_seed: SecretStr | None = None
    """The process's nkey seed; `None`: the role's key file in the data directory."""
    data_dir: Path | None = None
    """Where the site keeps its state and keys; `None`: the user's data directory."""
    log_level: str = "info"
    """`debug`, `info`, `warning` or `error`."""
    grace_s: float = Field(default=20.0, ge=0)
    """How long accepted work may take after a stop signal."""
    drain_delay_s: float = Field(default=0.0, ge=0)
    """Of that time, how long requests over HTTP are still taken, so that a balancer that asks
    `/readyz` turns away first."""
    metrics_interval_s: float = Field(default=5.0, gt=0)
    """Time between two reports on the bus."""
    control_socket: str | None = None
    """`HOST:PORT` of the health, metrics and control endpoint; `None`: none."""

    @field_validator("*", mode="before")
    @classmethod
    def _split_lists(cls, value: object, info: Any) -> object:  # noqa: ANN401 - pydantic's type
        wants = cls.model_fields[info.field_name].annotation
        if isinstance(value, str) and getattr(wants, "__origin__", None) is tuple:
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        if value.lower() not in ("debug", "info", "warning", "error"):
            raise ValueError("is one of debug, info, warning, error")
        return value.lower()


class StreamSettings(ServiceSettings):
    """What the services that make the site's streams and buckets are told; all need the same."""

    stream_replicas: int = Field(default=1, ge=1, le=5)
    """Servers that keep each stream and bucket; more than 1 needs a cluster of as many servers."""
    token_storage: Literal["memory", "file"] = "memory"
    """Where the token log is kept; an existing log keeps its storage."""
    token_log_bytes: int = Field(default=256 * 1024 * 1024, ge=1024 * 1024)
    """Most that the token log holds, on each server that keeps it."""


COMMON_NAMES = frozenset(StreamSettings.model_fields)
"""Settings that may be set once for every service that has them."""


@dataclass(frozen=True, slots=True)
class Loaded(Generic[SettingsT]):
    """Settings and where each value came from."""

    values: SettingsT
    origins: dict[str, str]
    """Field name to `default`, `FILE:LINE`, the variable's name, or `--flag`."""


def load_settings(
    kind: type[SettingsT],
    flags: Mapping[str, object] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Loaded[SettingsT]:
    """Return the settings of one service.

    Args:
        kind: The service's settings class.
        flags: Values given on the command line; `None` values count as not given.
        environment: Replaces the process's environment, for tests.
        file: The configuration file; `None`: `$HELEXA_CONFIG`, else `helexa.toml` in the working
            directory if there is one.

    Raises:
        SettingsError: a value is wrong or a key is not known.
    """
    variables = os.environ if environment is None else environment
    values: dict[str, object] = {}
    origins = dict.fromkeys(kind.model_fields, "default")
    path = file or _configuration_file(variables)
    if path is not None:
        _merge_file(kind, path, values, origins)
    _merge_environment(kind, variables, values, origins)
    for name, value in (flags or {}).items():
        if value is not None and value != ():
            values[name] = value
            origins[name] = "--" + name.replace("_", "-")
    try:
        return Loaded(kind.model_validate(values), origins)
    except ValidationError as error:
        raise SettingsError(_explain(kind, error, origins)) from error


def current_environment() -> dict[str, str]:
    """Return a copy of the environment, for child processes."""
    return dict(os.environ)


def default_data_dir(variables: Mapping[str, str] | None = None) -> Path:
    """Return where a site keeps its state when nothing else is said."""
    known = os.environ if variables is None else variables
    base = known.get("XDG_DATA_HOME")
    return (Path(base) if base else Path(known.get("HOME", "/")) / ".local" / "share") / "helexa"


def _configuration_file(variables: Mapping[str, str]) -> Path | None:
    named = variables.get(ENVIRONMENT_PREFIX + "CONFIG")
    if named:
        return Path(named)
    here = Path(FILE_NAME)
    return here if here.is_file() else None


def _merge_file(
    kind: type[ServiceSettings], path: Path, values: dict[str, object], origins: dict[str, str]
) -> None:
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: {error}") from error
    shared = {key: value for key, value in content.items() if not isinstance(value, dict)}
    own = content.get(kind.section, {})
    for table, entries in (("", shared), (kind.section, own)):
        for key, value in entries.items():
            origin = f"{path}:{_line_of(text, table, key)}"
            if key in kind.model_fields:
                values[key] = value
                origins[key] = origin
            elif table or key not in COMMON_NAMES:
                raise SettingsError(f"{origin}: unknown setting {key!r}{_suggest(kind, key)}")


def _merge_environment(
    kind: type[ServiceSettings],
    variables: Mapping[str, str],
    values: dict[str, object],
    origins: dict[str, str],
) -> None:
    for name in kind.model_fields:
        candidates = (
            f"{ENVIRONMENT_PREFIX}{kind.section}_{name}".upper(),
            f"{ENVIRONMENT_PREFIX}{name}".upper(),
            *WELL_KNOWN_VARIABLES.get(name, ()),
        )
        shared = name in COMMON_NAMES
        for variable in candidates:
            own = variable == candidates[0] or shared or variable in candidates[2:]
            if own and variables.get(variable):
                values[name] = variables[variable]
                origins[name] = variable
                break


def _line_of(text: str, table: str, key: str) -> int:
    current = ""
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped.startswith("["):
            current = stripped.strip("[]").strip()
        elif current == table and stripped.split("=")[0].strip().strip('"') == key:
            return number
    return 1


def _suggest(kind: type[BaseModel], key: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only when something is wrong

    close = get_close_matches(key, kind.model_fields, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _explain(
    kind: type[ServiceSettings], error: ValidationError, origins: Mapping[str, str]
) -> str:
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else kind.section
    origin = origins.get(name, name)
    if origin == "default":
        origin = f"--{name.replace('_', '-')}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{origin}: {name}: {message}"


def field_help(field: FieldInfo) -> str:
    """Return the description of a settings field, for `--help` and the reference page."""
    return field.description or ""


class SocketAddress(BaseModel):
    """`HOST:PORT`; an IPv6 host stands in brackets, port 0 takes a free one."""

    model_config = ConfigDict(frozen=True)
    host: str
    port: int = Field(ge=0, le=65535)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the address in `text`.

        Raises:
            SettingsError: it is not `HOST:PORT`.
        """
        host, colon, port = text.rpartition(":")
        if not colon or not port.isdecimal() or int(port) > 65535:
            raise SettingsError(f"{text!r} is not HOST:PORT, for example 127.0.0.1:8080")
        return cls(host=host.strip("[]") or "0.0.0.0", port=int(port))  # noqa: S104 - as asked

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host == "localhost" or self.host.startswith("127.") or self.host == "::1"

    @override
    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
