# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Private files: written whole or not at all, and refused when others can read them."""

import os
import tempfile
from pathlib import Path

from helexa.site.errors import KeyFileError

OTHERS = 0o077
"""Mode bits by which anybody but the owner could use a file."""


def write_secret(path: Path, text: str) -> None:
    """Replace `path` by a file of mode 0600 holding `text`, atomically and durably."""
    staged = _stage(path, text)
    try:
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)


def create_secret(path: Path, text: str) -> bool:
    """Create `path` as `write_secret` does and return True; return False if it already exists.

    Of two processes that create the same file one wins, and both then read the same text.
    """
    if path.exists():
        # Its directory may be mounted read-only, as in a container.
        return False
    staged = _stage(path, text)
    try:
        os.link(staged, path)
    except FileExistsError:
        return False
    finally:
        staged.unlink()
    return True


def read_secret(path: Path) -> str:
    """Return the text of `path` without surrounding white space.

    Raises:
        KeyFileError: it is missing, or others than its owner can read it.
    """
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & OTHERS:
                raise KeyFileError(f"{path} can be used by others; run: chmod 600 {path}")
            return file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise KeyFileError(f"{path} cannot be read: {reason}") from error


def _stage(path: Path, text: str) -> Path:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # mkstemp creates with mode 0600, so there is no moment at which others could read it.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return Path(name)
