# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A server that already runs, on this host or elsewhere, and speaks OpenAI's HTTP."""

import asyncio
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import msgspec

from helexa.neuron.backends.client import HttpClient
from helexa.neuron.backends.continuing import way_of
from helexa.neuron.backends.inference import HttpInference
from helexa.neuron.backends.limits import Timeouts
from helexa.neuron.backends.listing import read_listing
from helexa.protocol.errors import BackendError, BusyError, HelexaError, ModelFailedError
from helexa.protocol.messages.models import ModelConfig

_log = logging.getLogger(__name__)

_SLOTS = 16
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
# In the text of an answer quotes are escaped, so that this matches only the field.
_MODEL_FIELD = re.compile(rb'"model"\s*:\s*"(?:[^"\\]|\\.)*"')


class OpenAiProxyBackend(HttpInference):
    """A model of a server that is not ours to start or stop.

    Requests name `upstream_model` there, where the configuration has one; answers name `model`.

    Args:
        config: of the model; `listen_endpoint` is the server's base URL.
        timeouts: how long the server may be silent.
    """

    def __init__(self, config: ModelConfig, *, timeouts: Timeouts | None = None) -> None:
        super().__init__()
        self.config = config
        self.capability = config.capability
        self.slots = config.slots or _SLOTS
        self.died = asyncio.Event()
        """Never set: whether the server lives is seen by `probe`."""
        self._timeouts = timeouts or Timeouts()
        self.stops_when_left = config.whole_answers or False
        self._name = config.upstream_model or str(config.model)
        if self._name != config.model:
            self._outgoing = self._renamed
            field = f'"model": {json.dumps(str(config.model))}'.encode()
            self._incoming = lambda event: _MODEL_FIELD.sub(lambda _: field, event, count=1)

    async def start(self, progress: Callable[[float], None]) -> None:
        """Connect to the server and look whether it answers.

        Args:
            progress: called with 0 and 1.

        Raises:
            ModelFailedError: it does not, or the configuration lacks something.
        """
        progress(0.0)
        if not self.config.listen_endpoint:
            raise ModelFailedError("the model's configuration names no listen_endpoint")
        self.way = way_of(self.config.continuation)
        key = await asyncio.to_thread(self._key)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            client = HttpClient(
                self.config.listen_endpoint,
                headers=headers,
                max_idle=self.slots,
                timeouts=self._timeouts,
            )
        except ValueError as error:
            raise ModelFailedError(str(error)) from error
        self.connect(client)
        try:
            await self._look(client)
        except HelexaError as error:
            self.disconnect()
            raise ModelFailedError(error.message) from error
        progress(1.0)

    async def stop(self, grace_s: float) -> None:
        """Close the connections; the server goes on. `grace_s` is of no use here."""
        del grace_s
        self.disconnect()

    async def probe(self) -> None:
        """Return if the server answers; being busy is no failure.

        Raises:
            BackendError: it does not, or refuses our key.
        """
        try:
            await read_listing(self.connected(), self._name)
        except BusyError:
            return

    def last_words(self) -> str:
        """Return nothing: the server's log is not ours."""
        return ""

    def memory_bytes(self) -> int | None:
        """Return nothing: the server's memory is not ours to measure."""
        return None

    async def _look(self, client: HttpClient) -> None:
        known: dict[str, object] = {"continues_partial": self.way is not None}
        self.capability = self.capability.model_copy(update=known)
        try:
            listed = await read_listing(client, self._name)
        except BusyError:
            return
        if self.config.whole_answers is None:
            self.stops_when_left = listed.stops_when_left
        if listed.names and self._name not in listed.names:
            # Some servers list less than they serve.
            _log.warning("model_not_listed", extra={"model": self.config.model})
        if listed.context_tokens and self.capability.max_context_tokens is None:
            known["max_context_tokens"] = listed.context_tokens
            self.capability = self.capability.model_copy(update=known)

    def _key(self) -> str:
        if self.config.api_key_file is None:
            return ""
        try:
            return Path(self.config.api_key_file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ModelFailedError("the key of the server cannot be read") from error

    def _renamed(self, body: bytes) -> bytes:
        return ask_for(self._name, body)


def ask_for(model: str, body: bytes) -> bytes:
    """Return a request as one for `model`. What it asks is passed on unread: it may be long.

    Raises:
        BackendError: the body is no JSON object.
    """
    name = msgspec.Raw(json.dumps(model).encode())
    try:
        return msgspec.json.encode(_FIELDS.decode(body) | {"model": name})
    except (msgspec.DecodeError, UnicodeDecodeError):
        # It does not take all that Python's does, such as half of a surrogate pair.
        pass
    try:
        return json.dumps(json.loads(body) | {"model": model}).encode()
    except (ValueError, TypeError) as error:
        raise BackendError("the request is not a JSON object") from error
