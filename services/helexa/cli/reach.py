# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""How a command finds the site that it is about: by its data directory, or by what it is told."""

import argparse
from pathlib import Path
from typing import ClassVar

from pydantic import SecretStr

from helexa.cli.api import Api
from helexa.cli.flags import add_settings_flags, settings_flags
from helexa.process.settings import ServiceSettings, SettingsError, load_settings
from helexa.site.connect import data_dir_of
from helexa.site.files import read_secret
from helexa.site.layout import SiteFile

FLAGS = ("data_dir", "orchestrator_url", "gateway_url", "key")


class ClientSettings(ServiceSettings):
    """Where a site is, for the commands that use one."""

    section: ClassVar[str] = "client"

    orchestrator_url: str | None = None
    """Base URL of the orchestrator's API; `None`: the site of the data directory."""
    gateway_url: str | None = None
    """Base URL of the gateway; `None`: the site of the data directory."""
    key: SecretStr | None = None
    """The API key; `None`: the one in the data directory."""


def add_reach_arguments(parser: argparse.ArgumentParser) -> None:
    """Take where the site is."""
    add_settings_flags(parser, ClientSettings, only=FLAGS, secrets=("key",))


def read_client_settings(arguments: argparse.Namespace) -> ClientSettings:
    """Return where the site is, by `arguments`, the environment and the file.

    Raises:
        SettingsError: a value is wrong.
    """
    return load_settings(ClientSettings, settings_flags(arguments, ClientSettings)).values


def orchestrator(arguments: argparse.Namespace) -> Api:
    """Return the orchestrator's API of the site.

    Raises:
        SettingsError: it is not known where that is.
        KeyFileError: the key cannot be read.
    """
    settings = read_client_settings(arguments)
    data = data_dir_of(settings)
    site = SiteFile.load(data.site_file)
    url = settings.orchestrator_url or (site.orchestrator_url if site else None)
    return Api(
        "the orchestrator", _known(url, "orchestrator"), _key(settings, data.orchestrator_key)
    )


def gateway(arguments: argparse.Namespace) -> Api:
    """Return the gateway of the site.

    Raises:
        SettingsError: it is not known where that is.
        KeyFileError: the key cannot be read.
    """
    return Api("the gateway", *gateway_address(arguments))


def gateway_address(arguments: argparse.Namespace) -> tuple[str, str | None]:
    """Return the base URL of the site's gateway, and the key for it.

    Raises:
        SettingsError: it is not known where that is.
        KeyFileError: the key cannot be read.
    """
    settings = read_client_settings(arguments)
    data = data_dir_of(settings)
    site = SiteFile.load(data.site_file)
    url = settings.gateway_url or (site.gateway_url if site else None)
    return _known(url, "gateway"), _key(settings, data.gateway_key)


def _known(url: str | None, name: str) -> str:
    if url is None:
        raise SettingsError(
            f"no {name} is known: start a site with 'helexa up', or name one with "
            f"--{name}-url or --data-dir"
        )
    return url.rstrip("/")


def _key(settings: ClientSettings, file: Path) -> str | None:
    if settings.key is not None:
        return settings.key.get_secret_value()
    return read_secret(file) if file.exists() else None
