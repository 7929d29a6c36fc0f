# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helexa.site.errors import DataDirInUseError, KeyFileError, SiteError
from helexa.site.layout import DataDir, SiteFile

HOLD = """
import sys
from pathlib import Path
from helexa.site.layout import DataDir
with DataDir(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_every_directory_is_for_its_owner_alone(tmp_path: Path) -> None:
    data = DataDir(tmp_path / "deep" / "site")
    data.create()
    data.create()

    directories = [data.path, *(path for path in data.path.rglob("*") if path.is_dir())]
    assert len(directories) == 7
    assert {path.stat().st_mode & 0o777 for path in directories} == {0o700}


def test_a_neurons_name_cannot_leave_its_directory(tmp_path: Path) -> None:
    data = DataDir(tmp_path)

    assert data.neuron("../../etc").parent == data.neurons


def test_a_second_site_on_one_directory_is_told_who_holds_it(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DataDirInUseError) as refused, DataDir(tmp_path).lock():
            pass
        holder.kill()
        holder.wait()
    assert str(refused.value) == (
        f"Another site (PID {holder.pid}) runs on {tmp_path}; "
        "stop it, or name another directory with --data-dir."
    )
    with DataDir(tmp_path).lock():
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_a_directory_is_free_again_after_its_site(tmp_path: Path) -> None:
    for _ in range(2):
        with DataDir(tmp_path).lock():
            assert (tmp_path / "keys").is_dir()


def test_the_site_file_comes_back_as_written(tmp_path: Path) -> None:
    path = DataDir(tmp_path).site_file
    assert SiteFile.load(path) is None
    written = SiteFile(
        name="home", pid=7, nats_urls=("nats://127.0.0.1:4222",), gateway_url="http://x:1"
    )

    written.save(path)

    assert SiteFile.load(path) == written
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_damaged_site_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = DataDir(tmp_path).site_file
    path.write_text("{")
    with pytest.raises(KeyFileError, match="chmod 600"):
        SiteFile.load(path)
    path.chmod(0o600)
    with pytest.raises(SiteError, match="is damaged; delete it"):
        SiteFile.load(path)
