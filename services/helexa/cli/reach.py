# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""How a command finds the site that it is about: by its data directory, or by what it is told."""

import argparse
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from pydantic import SecretStr

from helexa.cli.api import Api
from helexa.cli.flags import add_settings_flags, settings_flags
from helexa.process.settings import (
    ServiceSettings,
    SettingsError,
    SocketAddress,
    load_settings,
)
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
    """The API key; `None`: the one in the data directory, which a foreign address is not sent."""


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
    own = site.orchestrator_url if site else None
    url = _known(settings.orchestrator_url or own, "orchestrator")
    return Api("the orchestrator", url, _key(settings, data.orchestrator_key, url, own))


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
    own = site.gateway_url if site else None
    url = _known(settings.gateway_url or own, "gateway")
    return url, _key(settings, data.gateway_key, url, own)


def _known(url: str | None, name: str) -> str:
    if url is None:
        raise SettingsError(
            f"no {name} is known: start a site with 'helexa up', or name one with "
            f"--{name}-url or --data-dir"
        )
    return url.rstrip("/")


def _key(settings: ClientSettings, file: Path, url: str, own: str | None) -> str | None:
    """Return the key for `url`: the one that is given, or else the site's, if it is for there."""
    if settings.key is not None:
        return settings.key.get_secret_value()
    # Who names another machine's address means that machine, whatever site is set up here.
    is_meant = settings.data_dir is not None or _is_local(url) or url == (own or "").rstrip("/")
    return read_secret(file) if is_meant and file.exists() else None


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return SocketAddress(host=host, port=0).is_loopback
