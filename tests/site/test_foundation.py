# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from helexa.cli.__main__ import main
from helexa.process.settings import SettingsError
from helexa.protocol.subjects import Role
from helexa.site.binary import ServerBinary
from helexa.site.config import SITE_ROLES, render_user
from helexa.site.enrolment import EnrolledUsers, hold_users
from helexa.site.foundation import Founded, Servers, found_site
from helexa.site.keys import Identity
from helexa.site.permissions import permissions_for

FIRST = Identity.generate().public
SECOND = Identity.generate().public


def found(path: Path, *names: str) -> Founded:
    return found_site(path, Servers(names or ("nats",), path / "store"))


def files(path: Path) -> dict[Path, str]:
    return {file.relative_to(path): file.read_text() for file in path.rglob("*") if file.is_file()}


def test_each_place_holds_the_keys_of_its_own_role(tmp_path: Path) -> None:
    found(tmp_path)

    seeds = {
        str(name): text.strip()
        for name, text in files(tmp_path).items()
        if text.startswith("SU") and name.suffix == ".nk"
    }
    by_place: dict[str, set[str]] = {}
    for name in seeds:
        by_place.setdefault(name.partition("/")[0], set()).add(Path(name).name)
    assert by_place == {
        "gateway": {"gateway.nk"},
        "scheduler": {"scheduler.nk"},
        "provisioner": {"provisioner.nk", "system.nk"},
        "portal": {"portal.nk"},
        "operator": {"admin.nk", "join.nk", "metrics.nk"},
    }
    for config in files(tmp_path / "nats").values():
        assert not [seed for seed in seeds.values() if seed in config]
    assert len(set(seeds.values())) == len(SITE_ROLES) + 1


def test_nobody_else_can_read_a_file(tmp_path: Path) -> None:
    found(tmp_path)

    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in files(tmp_path)}

    assert modes == {0o600}


def test_a_second_time_keeps_every_key_and_says_it_is_not_new(tmp_path: Path) -> None:
    first = found(tmp_path)
    before = files(tmp_path)

    second = found(tmp_path)

    assert (first.is_new, second.is_new) == (True, False)
    assert (second.name, second.api_key) == (first.name, first.api_key)
    assert files(tmp_path) == before


@pytest.mark.accepts("RM-15")
@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("gateway", {"gateway/keys/gateway.nk"}),
        ("system", {"provisioner/keys/system.nk"}),
        ("api-key", {"gateway/secrets/gateway.key", "operator/secrets/gateway.key"}),
    ],
)
def test_one_key_is_renewed_and_the_old_one_is_known_nowhere(
    tmp_path: Path, name: str, changed: set[str]
) -> None:
    found(tmp_path)
    before = files(tmp_path)
    seeds = {before[Path(key)].strip() for key in changed}
    publics = {Identity(seed).public for seed in seeds if seed.startswith("SU")}

    founded = found_site(tmp_path, Servers(("nats",), tmp_path / "store"), [name])

    after = files(tmp_path)
    keys = {str(each) for each, text in after.items() if text != before[each]}
    assert {each for each in keys if not each.endswith(".conf")} == changed
    assert founded.is_new == (name == "api-key")
    for text in after.values():
        assert not [each for each in (*seeds, *publics) if each in text]


def test_a_key_that_is_not_there_cannot_be_renewed(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no key 'nothing'"):
        found_site(tmp_path, Servers(("nats",), tmp_path), ["nothing"])


def test_a_place_that_was_lost_is_made_again(tmp_path: Path) -> None:
    key = found(tmp_path).api_key
    for file in (tmp_path / "gateway").rglob("*"):
        if file.is_file():
            file.unlink()

    found(tmp_path)

    assert (tmp_path / "gateway" / "secrets" / "gateway.key").read_text().strip() == key
    public = Identity.load(tmp_path / "gateway" / "keys" / "gateway.nk").public
    assert public in (tmp_path / "nats" / "services.conf").read_text()


def test_the_enrolled_stay_and_get_the_permissions_of_this_version(tmp_path: Path) -> None:
    found(tmp_path)
    users = tmp_path / "nats" / "neurons.conf"
    text = EnrolledUsers().add_neuron("n1", FIRST).render()
    users.write_text(text.replace(render_user(FIRST, permissions_for(Role.NEURON, "n1")), "{}"))

    found(tmp_path)

    assert render_user(FIRST, permissions_for(Role.NEURON, "n1")) in users.read_text()


def test_who_is_enrolled_meanwhile_is_not_lost(tmp_path: Path) -> None:
    found(tmp_path)
    users = tmp_path / "nats" / "neurons.conf"
    again = threading.Thread(target=found, args=(tmp_path,))

    with hold_users(users):
        enrolled = EnrolledUsers.load(users).add_neuron("n1", FIRST)
        again.start()
        enrolled.save(users)
    again.join(30)

    assert EnrolledUsers.load(users).neurons == {"n1": FIRST}


@pytest.mark.parametrize("names", [("nats",), ("nats-1", "nats-2", "nats-3")])
def test_the_servers_accept_what_is_written(
    binary: ServerBinary, tmp_path: Path, names: tuple[str, ...]
) -> None:
    found(tmp_path, *names)

    for name in names:
        checked = subprocess.run(
            [binary.path, "-t", "-c", tmp_path / "nats" / f"{name}.conf"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (checked.returncode, "is valid" in checked.stderr) == (0, True), checked.stderr
        text = (tmp_path / "nats" / f"{name}.conf").read_text()
        assert ("routes" in text) == (len(names) > 1)
        assert "log_file" not in text


@pytest.mark.parametrize("names", [("a b",), ("services",), ("nats", "nats"), ("../nats",), ()])
def test_a_server_that_cannot_be_called_so_is_refused(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    with pytest.raises(SettingsError, match="--server"):
        found_site(tmp_path, Servers(names, tmp_path))


def test_the_command_prints_the_key_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["site", "init", "--directory", str(tmp_path), "--store", "/store"]
    words += ["--api-url", "http://127.0.0.1:1/v1"]

    assert main(words) == 0
    first = capsys.readouterr().out
    assert main(words) == 0
    second = capsys.readouterr().out

    key = (tmp_path / "gateway" / "secrets" / "gateway.key").read_text().strip()
    assert key in first
    assert key not in second
    assert "http://127.0.0.1:1/v1" in first
    assert "http://127.0.0.1:1/v1" in second
