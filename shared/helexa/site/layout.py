# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The data directory of a site: where each file is, and who may use the directory."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from helexa.protocol.naming import encode_token
from helexa.protocol.subjects import Role
from helexa.site.config import NEURONS_FILE, SERVICES_FILE, Places
from helexa.site.errors import DataDirInUseError, SiteError
from helexa.site.files import read_secret, write_secret

DIRECTORY_MODE = 0o700


class SiteFile(BaseModel):
    """`site.json`: where a running site can be reached from this machine."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    pid: int
    nats_urls: tuple[str, ...]
    gateway_url: str | None = None
    orchestrator_url: str | None = None
    portal_url: str | None = None

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Return what `path` holds, or `None` when no site has written it.

        Raises:
            SiteError: it is damaged.
        """
        if not path.exists():
            return None
        try:
            return cls.model_validate_json(read_secret(path))
        except ValidationError as error:
            raise SiteError(f"{path} is damaged; delete it and start the site again.") from error

    def save(self, path: Path) -> None:
        """Replace `path` atomically."""
        write_secret(path, self.model_dump_json(indent=2) + "\n")


class DataDir:
    """The files of one site below one directory."""

    def __init__(self, path: Path) -> None:
        """Name the directory; `create` makes it."""
        self.path = path.absolute()

    def create(self) -> None:
        """Create the directories, for their owner alone."""
        self.path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        for directory in (self.nats, self.keys, self.secrets, self.neurons, self.models, self.logs):
            directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory against other sites; the kernel lets go when the process ends.

        Raises:
            DataDirInUseError: another process holds it.
        """
        self.create()
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.read(descriptor, 32).decode() or "unknown"
                raise DataDirInUseError(
                    f"Another site (PID {holder}) runs on {self.path}; "
                    "stop it, or name another directory with --data-dir."
                ) from error
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(descriptor)

    @property
    def site_file(self) -> Path:
        """Where the running site can be reached."""
        return self.path / "site.json"

    @property
    def nats(self) -> Path:
        """Everything of the NATS server."""
        return self.path / "nats"

    @property
    def nats_conf(self) -> Path:
        """The server's configuration."""
        return self.nats / "nats.conf"

    @property
    def services_conf(self) -> Path:
        """The users of the roles."""
        return self.nats / SERVICES_FILE

    @property
    def neurons_conf(self) -> Path:
        """The users of the enrolled neurons and of open join tokens."""
        return self.nats / NEURONS_FILE

    @property
    def places(self) -> Places:
        """What the server writes."""
        return Places(
            store=self.nats,
            pid_file=self.nats / "nats.pid",
            ports_dir=self.nats,
            log_file=self.server_log,
        )

    @property
    def server_log(self) -> Path:
        """What the server says."""
        return self.logs / "nats.log"

    @property
    def jetstream(self) -> Path:
        """The store: NATS names it so below the directory it is given."""
        return self.nats / "jetstream"

    @property
    def keys(self) -> Path:
        """Private keys."""
        return self.path / "keys"

    def role_key(self, role: Role) -> Path:
        """The key of a role's user; the one of enrolment is this machine's standing join token."""
        return self.keys / ("join.nk" if role is Role.ENROLMENT else f"{role}.nk")

    @property
    def system_key(self) -> Path:
        """The key of the user that reloads the servers."""
        return self.keys / "system.nk"

    @property
    def secrets(self) -> Path:
        """API keys that were made here."""
        return self.path / "secrets"

    @property
    def gateway_key(self) -> Path:
        """The API key that the site makes for its own use of the gateway."""
        return self.secrets / "gateway.key"

    @property
    def orchestrator_key(self) -> Path:
        """The key of the orchestrator's API and of control endpoints."""
        return self.secrets / "orchestrator.key"

    @property
    def neurons(self) -> Path:
        """A directory for each neuron of this machine."""
        return self.path / "neurons"

    def neuron(self, name: str) -> Path:
        """The directory of one neuron."""
        return self.neurons / encode_token(name)

    def neuron_key(self, name: str) -> Path:
        """The key of one neuron."""
        return self.neuron(name) / "neuron.nk"

    def ledger(self, portal: str) -> Path:
        """The directory of this machine's copy of a portal's ledger."""
        return self.path / "ledgers" / encode_token(portal)

    @property
    def models(self) -> Path:
        """Weights."""
        return self.path / "models"

    @property
    def provider_book(self) -> Path:
        """What this operator has earned."""
        return self.path / "provider"

    @property
    def logs(self) -> Path:
        """Logs of child processes."""
        return self.path / "logs"
