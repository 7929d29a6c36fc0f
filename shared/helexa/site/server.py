# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A nats-server as our child process: it starts with its configuration and dies with us."""

import asyncio
import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from helexa.process.parent import die_with_parent
from helexa.process.settings import current_environment
from helexa.protocol.subjects import Role
from helexa.site.binary import ServerBinary
from helexa.site.config import SITE_ROLES, SiteConfig, render_server, render_services, socket_text
from helexa.site.enrolment import EnrolledUsers
from helexa.site.errors import ServerStartError
from helexa.site.files import write_secret
from helexa.site.keys import Identity
from helexa.site.layout import DataDir

START_WITHIN_S = 60.0
"""A large store takes its time to be read."""
STOP_WITHIN_S = 10.0
TAIL_BYTES = 8192

_FIRST_LOOK_S = 0.01
_LONGEST_LOOK_S = 0.25

_REACHABLE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - how to reach "all addresses"
_FATAL = re.compile(r"\[FTL\] (.+)|^nats-server: (.+)", re.MULTILINE)
_DAMAGED = re.compile(r"\[(?:WRN|ERR)\]\s+(.*(?:metafile|recovering|checksum).*)")


class _Ports(BaseModel):
    nats: tuple[str, ...]


def environment(given: Mapping[str, str], cores: int) -> dict[str, str]:
    """Return the environment of a server that shares `cores` with the services of its site.

    It gets threads for a quarter of them. With more it looks for work where others wait for a core:
    of two cores, one thread took a quarter less than two, and a seventh off a request (measured).
    """
    return {"GOMAXPROCS": str(max(1, cores // 4)), **given}


class NatsServer:
    """The embedded server of one site, as an asynchronous context.

    The data directory must be locked by the caller: nats-server itself does not notice a second
    server on one store. It gets a process group of its own, so that Ctrl-C reaches us alone and our
    services can drain first; the kernel ends it if we are killed.
    """

    def __init__(self, binary: ServerBinary, data: DataDir, config: SiteConfig) -> None:
        """Keep what to run; entering the context starts it."""
        self.binary = binary
        self.data = data
        self.config = config
        self.url = ""
        """Where this machine reaches the server, once it is ready."""
        self._process: asyncio.subprocess.Process | None = None
        self._log_start = 0

    async def __aenter__(self) -> Self:
        """Write the configuration, start the server and return when it accepts clients.

        Raises:
            ServerStartError: it does not start; the message says why.
            KeyFileError: a key of the site cannot be used.
            EnrolledFileError: the file of enrolled neurons is damaged.
        """
        write_configuration(self.data, self.config)
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the server."""
        await self.stop()

    @property
    def pid(self) -> int:
        """The server's process id.

        Raises:
            ServerStartError: it has not been started.
        """
        return self._running.pid

    async def wait(self) -> int:
        """Return the exit code when the server has ended, by itself or by `stop`."""
        return await self._running.wait()

    async def stop(self, within_s: float = STOP_WITHIN_S) -> None:
        """End the server: it flushes and leaves; what takes longer than `within_s` is killed."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), within_s)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        self._ports_file(process.pid).unlink(missing_ok=True)

    @property
    def log_tail(self) -> str:
        """The last lines that the server wrote since this start."""
        try:
            with self.data.server_log.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, end - TAIL_BYTES))
                return log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    @property
    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise ServerStartError("The nats-server has not been started.")
        return self._process

    async def _start(self) -> None:
        for stale in self.data.nats.glob("*.ports"):
            stale.unlink()
        log_file = self.data.server_log
        with log_file.open("ab") as log:
            self._log_start = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                self.binary.path,
                "-c",
                self.data.nats_conf,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(current_environment(), len(os.sched_getaffinity(0))),
                start_new_session=True,
                preexec_fn=die_with_parent(os.getpid()),
            )
        try:
            async with asyncio.timeout(START_WITHIN_S):
                self.url = await self._ready(self._process)
        except TimeoutError as error:
            raise ServerStartError(
                f"nats-server was not ready within {START_WITHIN_S:.0f} s; see {log_file}."
            ) from error
        if damage := _DAMAGED.search(self.log_tail):
            # The server would go on without that stream, and what it held would seem never to have
            # been.
            raise ServerStartError(
                f"The store {self.data.jetstream} is damaged ({damage[1].strip()}); restore it "
                "from a backup, or move the named stream away to go on without it."
            )

    async def _ready(self, process: asyncio.subprocess.Process) -> str:
        exited = asyncio.ensure_future(process.wait())
        look_s = _FIRST_LOOK_S
        try:
            while (port := self._port(process.pid)) is None:
                await asyncio.wait({exited}, timeout=look_s)
                if exited.done():
                    raise ServerStartError(self._why_not())
                look_s = min(look_s * 1.5, _LONGEST_LOOK_S)
        finally:
            exited.cancel()
        host = _REACHABLE.get(self.config.host, self.config.host)
        return f"nats://{socket_text(host, port)}"

    def _port(self, pid: int) -> int | None:
        try:
            text = self._ports_file(pid).read_text(encoding="utf-8")
            return urlsplit(_Ports.model_validate_json(text).nats[0]).port
        except (FileNotFoundError, ValidationError):
            # Not there yet, or there and not yet written.
            return None

    def _ports_file(self, pid: int) -> Path:
        return self.data.nats / f"{self.binary.path.name}_{pid}.ports"

    def _why_not(self) -> str:
        tail = self.log_tail
        host, port = self.config.host, self.config.port
        if "address already in use" in tail:
            return f"Port {port} on {host} is taken; stop what uses it or choose another port."
        if "cannot assign requested address" in tail:
            return f"{host} is not an address of this machine; choose another one to listen on."
        fatal = _FATAL.search(tail)
        reason = (fatal[1] or fatal[2]).strip() if fatal else "it said nothing"
        return f"nats-server did not start: {reason} (see {self.data.server_log})."


def write_configuration(data: DataDir, config: SiteConfig) -> None:
    """Write the server's files, making the keys that do not exist yet.

    The users of neurons are written anew with the permissions of this version.

    Raises:
        KeyFileError: a key of the site cannot be used.
        EnrolledFileError: the file of enrolled neurons is damaged.
    """
    data.create()
    publics: dict[Role, str] = {
        role: Identity.load_or_create(data.role_key(role)).public for role in SITE_ROLES
    }
    system = Identity.load_or_create(data.system_key).public
    write_secret(data.nats_conf, render_server(config, data.places, system))
    write_secret(data.services_conf, render_services(publics))
    enrolled = EnrolledUsers()
    if data.neurons_conf.exists():
        enrolled = EnrolledUsers.load(data.neurons_conf)
    enrolled.save(data.neurons_conf)
