# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The text of a site's nats-server configuration. Pure: nothing here touches a file.

Three files, each with one writer. `nats.conf` holds the server and its accounts and is written by
whoever starts the server, as is `services.conf`, which names the user of each role. `neurons.conf`
holds the list of all users of the site's account: it takes the roles' users from `services.conf`
and adds the enrolled neurons, so the provisioner can rewrite it alone (`helexa.site.enrolment`).
NATS cannot add to a list from an included file, which is why the list itself is included.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from helexa.protocol.resources import MIB
from helexa.protocol.subjects import Role
from helexa.site.permissions import Permissions, permissions_for, system_permissions

SITE_ACCOUNT = "SITE"
SYSTEM_ACCOUNT = "SYS"
SERVICES_FILE = "services.conf"
NEURONS_FILE = "neurons.conf"
LOOPBACK = "127.0.0.1"
ANY_PORT = -1

SITE_ROLES: tuple[Role, ...] = tuple(role for role in Role if role is not Role.NEURON)
"""Roles with one user a site; each neuron has a user of its own."""

_CONNECTION_TYPES = ("STANDARD", "WEBSOCKET")
"""Without this a site's user could also connect as a leaf node."""
_CLUSTER_USER = "server"
_LOG_FILE_BYTES = 16 * MIB
_LOG_FILES = 4
_DEFINITIONS = "# Written by helexa when it starts the server; changes are lost.\n"


@dataclass(frozen=True, slots=True)
class Cluster:
    """One server's part in a cluster of servers that keep the site's streams together."""

    server: str
    """The server's own name; the site's name is that of the cluster."""
    routes: tuple[str, ...]
    """`HOST:PORT` of every server's cluster port; its own may be among them."""
    secret: str
    """What servers of one cluster show each other; letters, digits and `-` only."""
    host: str = LOOPBACK
    port: int = 6222
    """Where other servers connect."""


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """What may differ between the servers of two sites."""

    name: str
    """The server's name and, so that links between sites stay apart, its JetStream domain."""
    cluster: Cluster | None = None
    """`None`: a site of one server."""
    host: str = LOOPBACK
    port: int = 4222
    """`ANY_PORT` takes a free one."""
    monitor_port: int | None = None
    """NATS's own HTTP monitoring, on loopback only; `None`: off."""
    max_payload_bytes: int = 8 * MIB
    max_memory_bytes: int = 1024 * MIB
    """Streams reserve their largest size here and in `max_file_bytes` when they are created."""
    max_file_bytes: int = 16 * 1024 * MIB
    ping_interval_s: int = 10
    pings_out: int = 2
    write_deadline_s: int = 5
    lame_duck_s: int = 30
    """How long a server that is asked to leave takes to move its clients elsewhere."""


@dataclass(frozen=True, slots=True)
class Places:
    """The files that a server reads and writes, beside the included ones."""

    store: Path
    pid_file: Path | None = None
    ports_dir: Path | None = None
    """The server tells the port it took in a file here."""
    log_file: Path | None = None
    """`None`: the server logs to its standard error."""


def render_server(config: SiteConfig, places: Places, system_public: str) -> str:
    """Return `nats.conf`."""
    lines = [
        _DEFINITIONS.rstrip(),
        f"server_name: {_quote(config.cluster.server if config.cluster else config.name)}",
        f"listen: {_quote(socket_text(config.host, config.port))}",
        *_monitor(config),
        *_files(places),
        f"max_payload: {config.max_payload_bytes}",
        f'ping_interval: "{config.ping_interval_s}s"',
        f"ping_max: {config.pings_out}",
        f'write_deadline: "{config.write_deadline_s}s"',
        f'lame_duck_duration: "{config.lame_duck_s}s"',
        'lame_duck_grace_period: "1s"',
        "",
        *_jetstream(config, places.store),
        "",
        *(_cluster(config.name, config.cluster) if config.cluster else ()),
        *_accounts(system_public),
    ]
    return "\n".join(lines) + "\n"


def render_services(publics: Mapping[Role, str]) -> str:
    """Return `services.conf`: a variable for the user of each of `SITE_ROLES`.

    Raises:
        KeyError: a role has no key.
    """
    users = [
        f"{_variable(role)}: {render_user(publics[role], permissions_for(role))}"
        for role in SITE_ROLES
    ]
    return _DEFINITIONS + "\n".join(users) + "\n"


def render_users(entries: Sequence[str]) -> str:
    """Return the list of all users of the site: the roles' users, then `entries`."""
    users = [*(f"${_variable(role)}" for role in SITE_ROLES), *entries]
    return "\n".join([f'include "{SERVICES_FILE}"', "users: [", *users, "]"]) + "\n"


def render_user(public: str, permissions: Permissions) -> str:
    """Return one user, on one line."""
    allowed: dict[str, object] = {
        "publish": _allow(permissions.publish),
        "subscribe": _allow(permissions.subscribe),
    }
    user = {
        "nkey": public,
        "allowed_connection_types": list(_CONNECTION_TYPES),
        "permissions": allowed,
    }
    return json.dumps(user, ensure_ascii=False)


def _files(places: Places) -> list[str]:
    named = {
        "pid_file": places.pid_file,
        "ports_file_dir": places.ports_dir,
        "log_file": places.log_file,
    }
    lines = [f"{name}: {_quote(path)}" for name, path in named.items() if path is not None]
    if places.log_file is not None:
        lines += [f"logfile_size_limit: {_LOG_FILE_BYTES}", f"logfile_max_num: {_LOG_FILES}"]
    return lines


def _jetstream(config: SiteConfig, store: Path) -> list[str]:
    # A server that takes money must not lose what it has acknowledged. With NATS's default interval
    # a power cut lost everything that was acknowledged since the last flush, minutes of it.
    return [
        "jetstream {",
        f"  store_dir: {_quote(store)}",
        f"  domain: {_quote(config.name)}",
        "  sync_interval: always",
        f"  max_memory_store: {config.max_memory_bytes}",
        f"  max_file_store: {config.max_file_bytes}",
        "}",
    ]


def _cluster(name: str, cluster: Cluster) -> list[str]:
    user = f"{_CLUSTER_USER}:{cluster.secret}"
    routes = ", ".join(_quote(f"nats://{user}@{address}") for address in cluster.routes)
    return [
        "cluster {",
        f"  name: {_quote(name)}",
        f"  listen: {_quote(socket_text(cluster.host, cluster.port))}",
        f"  authorization {{ user: {_CLUSTER_USER}, password: {_quote(cluster.secret)} }}",
        f"  routes: [{routes}]",
        # Clients keep to the addresses that they were given: the servers' own may mean nothing to
        # a neuron behind NAT, and a container's is another one after each start.
        "  no_advertise: true",
        "}",
        "",
    ]


def _accounts(system_public: str) -> list[str]:
    return [
        f"system_account: {SYSTEM_ACCOUNT}",
        "accounts {",
        f"  {SYSTEM_ACCOUNT} {{",
        "    users: [",
        f"      {render_user(system_public, system_permissions())}",
        "    ]",
        "  }",
        f"  {SITE_ACCOUNT} {{",
        "    jetstream: enabled",
        f'    include "{NEURONS_FILE}"',
        "  }",
        "}",
    ]


def _monitor(config: SiteConfig) -> list[str]:
    if config.monitor_port is None:
        return []
    return [f"http: {_quote(socket_text(LOOPBACK, config.monitor_port))}"]


def _allow(allowed: tuple[str, ...]) -> dict[str, list[str]]:
    # The server takes an empty list of allowed subjects as no restriction.
    return {"allow": list(allowed)} if allowed else {"deny": [">"]}


def _variable(role: Role) -> str:
    return role.upper()


def socket_text(host: str, port: int) -> str:
    """Return `HOST:PORT`, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _quote(value: object) -> str:
    return json.dumps(str(value), ensure_ascii=False)
