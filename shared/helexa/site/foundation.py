# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Founds a site whose servers and processes others start, each in a place of its own.

Below one directory there is one for each that may read it: `gateway`, `scheduler`, `provisioner`
and `portal` hold that role's key, `nats` what the servers and the provisioner share, `operator`
what is the operator's own. Where these are volumes of containers, nobody can read a key of others.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from helexa.process.settings import SettingsError
from helexa.protocol.naming import random_id
from helexa.protocol.subjects import Role
from helexa.site.config import (
    NEURONS_FILE,
    SERVICES_FILE,
    SITE_ROLES,
    Cluster,
    Places,
    SiteConfig,
    render_server,
    render_services,
)
from helexa.site.enrolment import EnrolledUsers, hold_users
from helexa.site.files import create_secret, read_secret, write_secret
from helexa.site.keys import Identity, random_key
from helexa.site.layout import DIRECTORY_MODE, DataDir

SERVED_ROLES = (Role.GATEWAY, Role.SCHEDULER, Role.PROVISIONER, Role.PORTAL)
OPERATOR = "operator"
NATS = "nats"
CLUSTER_PORT = 6222
SYSTEM = "system"
API_KEY = "api-key"
ORCHESTRATOR_KEY = "orchestrator-key"

_SECRET_BITS = 160
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_TAKEN = {Path(SERVICES_FILE).stem, Path(NEURONS_FILE).stem}


@dataclass(frozen=True, slots=True)
class Servers:
    """The nats-servers that a site shall have."""

    names: tuple[str, ...]
    """The host of each; several form a cluster."""
    store: Path
    """Where each of them keeps its streams."""
    host: str = "0.0.0.0"  # noqa: S104 - a container's own network
    port: int = 4222
    monitor_port: int = 8222
    """On loopback, for health checks."""


@dataclass(frozen=True, slots=True)
class Founded:
    """A site that can be started."""

    name: str
    api_key: str
    is_new: bool
    """Whether its key was made just now."""


def found_site(path: Path, servers: Servers, renewed: Collection[str] = ()) -> Founded:
    """Make what the site below `path` lacks; no key that is there changes unless it is `renewed`.

    The servers' configuration is written anew, as this version wants it. What uses a key that was
    renewed has to be started again, after the servers have read their configuration.

    Raises:
        SettingsError: a server cannot be called so, or there is no such key.
        KeyFileError: a key of the site cannot be used.
        EnrolledFileError: the file of enrolled neurons is damaged.
    """
    _check(servers.names)
    for name in renewed:
        _forget(path, name)
    operator = DataDir(path / OPERATOR)
    create_secret(operator.secrets / "name", f"site-{random_id(40)}\n")
    name = read_secret(operator.secrets / "name")
    keys = _role_keys(path)
    publics = {role: Identity.load_or_create(key).public for role, key in keys.items()}
    system = Identity.load_or_create(DataDir(path / Role.PROVISIONER).system_key).public
    _write_servers(path / NATS, name, servers, _cluster_secret(operator), publics, system)
    _share_key(operator.orchestrator_key, DataDir(path / Role.PROVISIONER).orchestrator_key)
    is_new = _share_key(operator.gateway_key, DataDir(path / Role.GATEWAY).gateway_key)
    return Founded(name, read_secret(operator.gateway_key), is_new)


def _forget(path: Path, name: str) -> None:
    """Remove the key `name` from every place."""
    operator, provisioner = DataDir(path / OPERATOR), DataDir(path / Role.PROVISIONER)
    files = {
        **{role.value: (key,) for role, key in _role_keys(path).items()},
        SYSTEM: (provisioner.system_key,),
        API_KEY: (operator.gateway_key, DataDir(path / Role.GATEWAY).gateway_key),
        ORCHESTRATOR_KEY: (operator.orchestrator_key, provisioner.orchestrator_key),
    }
    if name not in files:
        raise SettingsError(f"--renew: there is no key {name!r}; known are {', '.join(files)}")
    for file in files[name]:
        file.unlink(missing_ok=True)


def _check(names: tuple[str, ...]) -> None:
    for name in names:
        if not _HOST_NAME.fullmatch(name) or name in _TAKEN or names.count(name) > 1:
            raise SettingsError(f"--server: {name!r} cannot be the name of a server's host")
    if not names:
        raise SettingsError("--server: a site needs at least one")


def _role_keys(path: Path) -> dict[Role, Path]:
    """Return where each role's key is: with the role's processes, else with the operator."""
    homes = {role: role.value if role in SERVED_ROLES else OPERATOR for role in SITE_ROLES}
    return {role: DataDir(path / home).role_key(role) for role, home in homes.items()}


def _cluster_secret(operator: DataDir) -> str:
    create_secret(operator.secrets / "cluster", random_id(_SECRET_BITS) + "\n")
    return read_secret(operator.secrets / "cluster")


def _share_key(operators: Path, roles: Path) -> bool:
    """Give both the same API key; return whether it is a new one."""
    is_new = create_secret(operators, random_key() + "\n")
    create_secret(roles, read_secret(operators) + "\n")
    return is_new


def _write_servers(
    directory: Path,
    site: str,
    servers: Servers,
    secret: str,
    publics: Mapping[Role, str],
    system: str,
) -> None:
    directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    routes = tuple(f"{name}:{CLUSTER_PORT}" for name in servers.names)
    for name in servers.names:
        cluster = Cluster(name, routes, secret, host=servers.host, port=CLUSTER_PORT)
        config = SiteConfig(
            site,
            cluster=cluster if len(servers.names) > 1 else None,
            host=servers.host,
            port=servers.port,
            monitor_port=servers.monitor_port,
        )
        text = render_server(config, Places(store=servers.store), system)
        write_secret(directory / f"{name}.conf", text)
    write_secret(directory / SERVICES_FILE, render_services(publics))
    users = directory / NEURONS_FILE
    with hold_users(users):
        enrolled = EnrolledUsers.load(users) if users.exists() else EnrolledUsers()
        enrolled.save(users)
