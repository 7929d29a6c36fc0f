# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Which neuron this is: its id, and the key that its id is bound to."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from helexa.process.settings import SettingsError
from helexa.protocol.errors import BadRequestError
from helexa.protocol.naming import random_id
from helexa.site.keys import Identity
from helexa.site.layout import DIRECTORY_MODE, DataDir
from helexa.site.permissions import neuron_token

MACHINE_ID = Path("/etc/machine-id")
MINTED_BITS = 60


def resolve_node_id(
    given: str | None, data: DataDir, machine_id: Path = MACHINE_ID, *, may_mint: bool = False
) -> str:
    """Return the neuron's id: the one given, else the one kept in `data`, else the machine's.

    Args:
        given: What the operator says.
        data: Keeps the id of earlier starts.
        machine_id: A file that names this machine.
        may_mint: Make and keep a new id where there is none at all, as in a container.

    Raises:
        SettingsError: there is none, there are several, or it cannot be one.
    """
    found = given or _kept_id(data) or _text(machine_id)
    if not found and may_mint:
        found = f"neuron-{random_id(MINTED_BITS)}"
        keep_node_id(found, data)
    if not found:
        raise SettingsError(
            f"this neuron has no id: give one with --node-id (there is none in {data.neurons} "
            f"and {machine_id} is missing or empty)"
        )
    try:
        neuron_token(found)
    except BadRequestError as error:
        raise SettingsError(f"--node-id: {error.message}") from error
    return found


def keep_node_id(neuron_id: str, data: DataDir) -> None:
    """Make `neuron_id` the one that later starts on `data` take."""
    directory = data.neuron(neuron_id)
    directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    path = _id_file(directory)
    if _text(path) != neuron_id:
        path.write_text(neuron_id + "\n", encoding="utf-8")


def load_identity(neuron_id: str, data: DataDir, seed: str | None = None) -> Identity:
    """Return the neuron's key: `seed`, else the one kept in `data`, made at the first start.

    Raises:
        KeyFileError: it is damaged or others can read it.
    """
    if seed is not None:
        return Identity.from_seed(seed)
    data.neuron(neuron_id).mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    return Identity.load_or_create(data.neuron_key(neuron_id))


@contextlib.contextmanager
def hold_identity(neuron_id: str, data: DataDir) -> Iterator[None]:
    """Be the only process that runs as `neuron_id` on `data`; the kernel lets go at its end.

    Raises:
        SettingsError: another process is it already.
    """
    directory = data.neuron(neuron_id)
    directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    with (directory / "lock").open("wb") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingsError(
                f"another process runs as the neuron {neuron_id} on {data.path}; "
                "stop it, or choose another id with --node-id"
            ) from error
        yield


def _kept_id(data: DataDir) -> str | None:
    kept = [text for path in sorted(data.neurons.glob("*")) if (text := _text(_id_file(path)))]
    if len(kept) > 1:
        raise SettingsError(
            f"{data.neurons} holds several neurons ({', '.join(kept)}): choose one with --node-id"
        )
    return kept[0] if kept else None


def _id_file(directory: Path) -> Path:
    return directory / "node-id"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
