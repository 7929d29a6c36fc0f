# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import re
import subprocess
from pathlib import Path

import pytest

from helexa.protocol.resources import BUCKETS, OBJECT_STORES, STREAMS
from helexa.protocol.subjects import Role
from helexa.site.binary import ServerBinary
from helexa.site.config import Cluster, SiteConfig, render_server, render_user
from helexa.site.keys import Identity
from helexa.site.layout import DataDir
from helexa.site.permissions import Permissions, permissions_for
from helexa.site.server import write_configuration

SYSTEM = Identity.generate().public


def test_the_server_accepts_what_is_written(binary: ServerBinary, tmp_path: Path) -> None:
    data = DataDir(tmp_path / 'a "quoted" name\\')
    write_configuration(data, SiteConfig("home", port=-1, monitor_port=-1))

    checked = subprocess.run(
        [binary.path, "-t", "-c", data.nats_conf], capture_output=True, text=True, check=False
    )

    assert (checked.returncode, "is valid" in checked.stderr) == (0, True), checked.stderr


def test_the_server_accepts_its_part_in_a_cluster(binary: ServerBinary, tmp_path: Path) -> None:
    cluster = Cluster("nats-2", ("nats-1:6222", "nats-2:6222"), "a-secret", host="0.0.0.0")
    data = DataDir(tmp_path)
    write_configuration(data, SiteConfig("home", cluster=cluster, port=-1))

    checked = subprocess.run(
        [binary.path, "-t", "-c", data.nats_conf], capture_output=True, text=True, check=False
    )

    assert (checked.returncode, "is valid" in checked.stderr) == (0, True), checked.stderr
    text = data.nats_conf.read_text()
    assert 'server_name: "nats-2"' in text
    assert 'domain: "home"' in text


def test_nothing_listens_beyond_this_machine_unless_told(tmp_path: Path) -> None:
    places = DataDir(tmp_path).places
    default = render_server(SiteConfig("home"), places, SYSTEM)
    told = render_server(SiteConfig("home", host="::", monitor_port=8222), places, SYSTEM)

    assert 'listen: "127.0.0.1:4222"' in default
    assert "http" not in default
    assert 'listen: "[::]:4222"' in told
    assert 'http: "127.0.0.1:8222"' in told


def test_all_that_is_declared_fits_the_limits() -> None:
    config = SiteConfig("home")
    sizes = [(s.storage, s.max_bytes) for s in STREAMS]
    sizes += [(s.storage, s.max_bytes) for s in OBJECT_STORES]
    sizes += [("file", bucket.max_bytes) for bucket in BUCKETS]

    assert sum(size for kind, size in sizes if kind == "memory") <= config.max_memory_bytes
    assert sum(size for kind, size in sizes if kind == "file") <= config.max_file_bytes


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.NEURON])
def test_an_empty_list_denies_everything(role: Role) -> None:
    permissions = permissions_for(role)
    publish = re.search(r'"publish": (\{[^}]*\})', render_user(SYSTEM, permissions))

    assert publish is not None
    assert (publish[1] == '{"deny": [">"]}') == (permissions.publish == ())
    assert '"allow": []' not in render_user(SYSTEM, Permissions((), ()))


def test_a_restart_keeps_the_enrolled_and_renews_their_permissions(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    write_configuration(data, SiteConfig("home"))
    keys = data.services_conf.read_text()
    public = Identity.generate().public
    head, _, tail = data.neurons_conf.read_text().partition("users: [\n")
    data.neurons_conf.write_text(
        f'{head}users: [\n# neuron n1 {public}\n{{"nkey": "{public}"}}\n{tail}'
    )

    write_configuration(data, SiteConfig("home"))

    assert data.services_conf.read_text() == keys
    assert render_user(public, permissions_for(Role.NEURON, "n1")) in data.neurons_conf.read_text()
