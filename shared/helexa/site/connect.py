# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""How a process of a site finds its servers and its key."""

from pathlib import Path

from helexa.bus.connection import Connection
from helexa.process.settings import ServiceSettings, SettingsError, default_data_dir
from helexa.protocol.subjects import Role, inbox_prefix
from helexa.site.keys import Identity
from helexa.site.layout import DataDir, SiteFile


def data_dir_of(settings: ServiceSettings) -> DataDir:
    """Return the data directory that `settings` name, else the user's own."""
    return DataDir(settings.data_dir or default_data_dir())


def servers_of(settings: ServiceSettings) -> tuple[str, ...]:
    """Return the site's servers: those given, else those of the site on this machine.

    Raises:
        SettingsError: there are none; the message says what to do.
    """
    if settings.nats_url:
        return settings.nats_url
    place = data_dir_of(settings)
    site = SiteFile.load(place.site_file)
    if site is None:
        raise SettingsError(
            f"no site is known in {place.path}: start one with 'helexa up' or 'helexa cortex', "
            "or name its servers with --nats-url"
        )
    return site.nats_urls


def site_connection(settings: ServiceSettings, role: Role, *, instance: str = "") -> Connection:
    """Return how a process in `role` connects to its site.

    Without a key, neither given nor in the data directory, it connects to servers that were named
    explicitly as nobody, which only servers without users accept.

    Raises:
        SettingsError: the servers or the key cannot be found.
    """
    return Connection(
        servers=servers_of(settings),
        name=f"helexa-{role}-{instance}" if instance else f"helexa-{role}",
        seed=_seed(settings, data_dir_of(settings).role_key(role)),
        inbox_prefix=inbox_prefix(role),
    )


def _seed(settings: ServiceSettings, key_file: Path) -> str | None:
    if settings.nats_seed is not None:
        return settings.nats_seed.get_secret_value()
    if key_file.exists():
        return Identity.load(key_file).seed
    if settings.nats_url:
        return None
    raise SettingsError(f"the key file {key_file} is missing; start the site again to make it")
