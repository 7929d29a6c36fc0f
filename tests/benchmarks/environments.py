# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Where the other servers are installed: each into a folder of its own, none into the project."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.targets import LeftOutError

INSTALL_WITHIN_S = 1200


def environment_of(package: str, folder: Path) -> Path:
    """Return the folder of the programs of a package from PyPI, installed unless it is there.

    Args:
        package: Its name, extras included.
        folder: Of its environment.

    Raises:
        LeftOutError: it cannot be installed.
    """
    programs = folder / "bin"
    done = folder / "installed"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run((sys.executable, "-m", "venv", folder))
        _run((programs / "python", "-m", "pip", "install", "--quiet", package))
        done.touch()
    return programs


def version_of(package: str, programs: Path) -> str:
    """Return the version of a package in an environment."""
    name = package.partition("[")[0]
    asked = f"import importlib.metadata as m; print(m.version({name!r}))"
    return _run((programs / "python", "-c", asked)).strip()


def debian_program(package: str, path: str, folder: Path) -> Path:
    """Return a program of a Debian package: the machine's own, else one unpacked into `folder`.

    Raises:
        LeftOutError: there is none.
    """
    own = shutil.which(Path(path).name)
    if own is not None:
        return Path(own)
    unpacked = folder / path
    if not unpacked.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _run(("apt-get", "download", package), folder)
        for archive in folder.glob(f"{package}_*.deb"):
            _run(("dpkg", "-x", archive, folder), folder)
    if not unpacked.exists():
        raise LeftOutError(f"the package {package} has no {path}")
    return unpacked


def _run(argv: tuple[str | Path, ...], folder: Path | None = None) -> str:
    try:
        done = subprocess.run(
            tuple(map(str, argv)),
            cwd=folder,
            check=False,
            capture_output=True,
            text=True,
            timeout=INSTALL_WITHIN_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LeftOutError(f"{argv[0]}: {error}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise LeftOutError(f"{Path(argv[0]).name} failed: {last}")
    return done.stdout
