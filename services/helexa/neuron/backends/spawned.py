# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Backends whose server this neuron starts itself: started, awaited, watched and ended."""

import asyncio
import logging
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path

from helexa.neuron.backends.child import Child
from helexa.neuron.backends.client import HttpClient
from helexa.neuron.backends.continuing import way_of
from helexa.neuron.backends.inference import HttpInference
from helexa.neuron.backends.limits import RuntimeLimits, Timeouts
from helexa.neuron.backends.listing import read_listing
from helexa.neuron.backends.place import Place, fixed_port, port_taken, taken_place
from helexa.neuron.backends.ports import free_port
from helexa.neuron.backends.reasons import failure_reason, says_port_is_taken
from helexa.protocol.errors import BackendError, HelexaError, ModelFailedError
from helexa.protocol.messages.models import ContinuationWay, ModelConfig

_log = logging.getLogger(__name__)

_PORT_ATTEMPTS = 3
_POLL_FIRST_S = 0.02
_POLL_MAX_S = 0.5
_PROBE = Timeouts(connect_s=2.0, first_byte_s=5.0, idle_s=5.0)


class SpawnedBackend(HttpInference, ABC):
    """A server that is started as a process of this host and speaks OpenAI's HTTP.

    Subclasses give the command, and read after the start what the model can do.

    Args:
        config: of the model.
        model_path: its weights on this host, `None` where the runtime fetches them itself.
        limits: what the runtime may use.
        choose_port: where the configuration names none.
    """

    default_slots = 4
    own_way: str = ContinuationWay.NONE
    """How the runtime is told to go on from a partial answer, unless the configuration says."""
    own_stops_when_left = False
    """Whether the runtime gives up a whole answer that nobody waits for, unless the configuration
    says."""
    health_paths: tuple[str, ...] = ("/health",)

    def __init__(
        self,
        config: ModelConfig,
        *,
        model_path: Path | None = None,
        limits: RuntimeLimits | None = None,
        choose_port: Callable[[], int] = free_port,
    ) -> None:
        super().__init__()
        self.config = config
        self.capability = config.capability
        self.slots = config.slots or self.default_slots
        self.died = asyncio.Event()
        whole = config.whole_answers
        self.stops_when_left = self.own_stops_when_left if whole is None else whole
        self.model_path = model_path
        self.limits = limits or RuntimeLimits()
        self._choose_port = choose_port
        self._child: Child | None = None
        self._is_serving = False
        self._is_stopping = False

    @abstractmethod
    def command(self, place: Place) -> Sequence[str]:
        """Return program and arguments.

        Raises:
            ModelFailedError: the program is not on this host.
        """

    def environment(self, place: Place) -> dict[str, str]:
        """Return variables for the process, beside the configuration's own."""
        del place
        return {}

    async def check(self) -> None:
        """Look for what would make a start fail.

        Raises:
            ModelFailedError: it would.
        """

    async def complete_capability(self) -> None:
        """Read from the running server what the configuration leaves open.

        Raises:
            BackendError: the server does not answer.
        """
        listed = await read_listing(self.connected(), self.config.model)
        known: dict[str, object] = {"continues_partial": self.way is not None}
        if listed.context_tokens and self.capability.max_context_tokens is None:
            known["max_context_tokens"] = listed.context_tokens
        self.capability = self.capability.model_copy(update=known)

    async def start(self, progress: Callable[[float], None]) -> None:
        """Start the server and return when it can serve.

        Args:
            progress: called with 0 to 1; the share of the weights that is in memory.

        Raises:
            ModelFailedError: it cannot be started; the message holds the runtime's own reason.
        """
        progress(0.0)
        self.died.clear()
        self._is_stopping = False
        await self.check()
        self.way = way_of(self.config.continuation, self.own_way)
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            try:
                await self._start_once(progress)
            except ModelFailedError:
                lost_port = says_port_is_taken(self.last_words().splitlines())
                is_last = fixed_port(self.config) is not None or attempt == _PORT_ATTEMPTS
                if self._is_stopping or not lost_port or is_last:
                    raise
                _log.info("port_taken", extra={"model": self.config.model, "attempt": attempt})
            else:
                break
        progress(1.0)

    async def stop(self, grace_s: float) -> None:
        """End the server and everything that it started; safe in any state."""
        self._is_serving = False
        self._is_stopping = True
        if self._child is not None:
            await self._child.stop(grace_s)
        self.disconnect()

    async def probe(self) -> None:
        """Return if a request would be served now; being busy is no failure.

        Raises:
            BackendError: a request would fail.
        """
        if not await self._is_healthy(self.connected()):
            raise BackendError("the backend is not healthy")

    def last_words(self) -> str:
        """Return the last lines of the server's output."""
        return "\n".join(self._child.lines()) if self._child else ""

    def memory_bytes(self) -> int | None:
        """Return the resident memory of the server and its children."""
        return self._child.memory_bytes() if self._child else None

    def program(self, name: str) -> str:
        """Return the absolute path of a program.

        Raises:
            ModelFailedError: it is not on this host.
        """
        found = shutil.which(name)
        if found is None:
            raise ModelFailedError(f"{Path(name).name} is not installed on this host")
        return str(Path(found).absolute())

    async def _start_once(self, progress: Callable[[float], None]) -> None:
        with taken_place(self.config, self._choose_port) as place:
            words = [*self.command(place), *self.config.args]
            program, *arguments = (self._filled(word, place) for word in words)
            env = {**self.environment(place), **self.config.env}
            self._child = Child(
                [self.program(program), *arguments],
                {name: self._filled(value, place) for name, value in env.items()},
                name=self.config.model,
                on_exit=self._on_exit,
            )
            is_ready = False
            try:
                await self._child.start()
                await self._become_ready(self._child, place, progress)
                is_ready = True
            except OSError as error:
                raise ModelFailedError(f"no process can be started: {error.strerror}") from error
            finally:
                if not is_ready:
                    await self._child.stop(0)
                    self.disconnect()

    async def _become_ready(
        self, child: Child, place: Place, progress: Callable[[float], None]
    ) -> None:
        key = {"Authorization": f"Bearer {place.api_key}"}
        client = HttpClient(
            place.url, headers=key, max_idle=self.slots, timeouts=self.limits.timeouts
        )
        self.connect(client)
        polling = asyncio.create_task(self._poll(client, progress))
        exiting = asyncio.create_task(child.exited.wait())
        try:
            done, _ = await asyncio.wait(
                {polling, exiting},
                timeout=self.limits.load_timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if polling in done and not child.exited.is_set():
                await self._understand()
            if polling not in done or child.exited.is_set():
                raise self._failure(child)
            self._is_serving = True
        finally:
            polling.cancel()
            exiting.cancel()
            await asyncio.gather(polling, exiting, return_exceptions=True)

    async def _understand(self) -> None:
        try:
            await self.complete_capability()
        except HelexaError as error:
            raise ModelFailedError(f"the runtime does not serve: {error.message}") from error

    async def _poll(self, client: HttpClient, progress: Callable[[float], None]) -> None:
        pause_s = _POLL_FIRST_S
        while not await self._is_healthy(client):
            progress(self._loaded_share())
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _POLL_MAX_S)

    async def _is_healthy(self, client: HttpClient) -> bool:
        for path in self.health_paths:
            try:
                status, _ = await client.fetch(path, timeouts=_PROBE)
            except BackendError:
                return False
            if status != HTTPStatus.NOT_FOUND:
                return status in {HTTPStatus.OK, HTTPStatus.NO_CONTENT}
        return False

    def _loaded_share(self) -> float:
        if self.model_path is None or not self.model_path.is_file():
            return 0.0
        return min(0.95, (self.memory_bytes() or 0) / max(1, self.model_path.stat().st_size))

    def _on_exit(self) -> None:
        if self._is_serving:
            self._is_serving = False
            code = self._child.exit_code if self._child else None
            _log.warning("runtime_died", extra={"model": self.config.model, "exit_code": code})
            self.died.set()

    def _failure(self, child: Child) -> ModelFailedError:
        if self._is_stopping:
            return ModelFailedError("the model was stopped while it was loading")
        if not child.exited.is_set():
            limit_s = self.limits.load_timeout_s
            return ModelFailedError(f"the model was not ready after {limit_s:g} s")
        port = fixed_port(self.config)
        if port is not None and says_port_is_taken(child.lines()):
            return port_taken(port)
        reason = failure_reason(child.lines())
        return ModelFailedError(
            f"the runtime ended with code {child.exit_code}" + (f": {reason}" if reason else "")
        )

    def _filled(self, text: str, place: Place) -> str:
        return place.fill(text, self.config, self.model_path)
