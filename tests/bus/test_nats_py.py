# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
# ruff: noqa: SLF001 - private names of nats-py are what this is about
"""What `helexa.bus.direct` takes for granted of nats-py's inside.

Where one of these fails, nats-py has changed: read the named part of its source beside
`helexa/bus/direct.py`, change what has to be changed, and only then renew what is written here.
"""

import hashlib
import inspect
from collections.abc import Callable

import pytest
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.protocol.parser import Parser

from helexa.bus.direct import DirectClient

READ = {
    "_flush_queue",
    "_inbox_prefix",
    "_max_payload",
    "_max_pending_size",
    "_nuid",
    "_pending",
    "_pending_data_size",
    "_ps",
    "_sid",
    "_status",
    "_subs",
    "_transport",
}
"""Attributes of nats-py's client that we use."""
ADDED = {
    "_awaited",
    "_backlog",
    "_deadlines",
    "_inbox",
    "_socket",
    "_will_write",
    "_will_write_later",
}
"""Attributes that we add, which must not be nats-py's."""
METHODS: dict[Callable[..., object], str] = {
    Client._attempt_reconnect: "35547e2faf88",
    Client._close: "a04ed80cea41",
    Client._flush_pending: "4cb0f6eab923",
    Client._flusher: "3aead5aed986",
    Client._process_connect_init: "d359919a1213",
    Client._process_err: "8cb170ce77df",
    Client._process_info: "603da9871a4a",
    Client._process_msg: "5d15af8418e8",
    Client._process_op_err: "c43e098cbd87",
    Client._process_ping: "1668ab049e65",
    Client._process_pong: "ca8a0ccd2a67",
    Client._read_loop: "b313353d2843",
    Client._send_command: "da98595c4c4b",
    Client._send_ping: "75221493425f",
    Client._send_publish: "0fa96670a540",
    Client._send_subscribe: "2ef6e70e3087",
    Client.flush: "1f8c6b80ff96",
    Client.publish: "c2002d55e02b",
    Client.request: "e26ddc862bb6",
    Client.subscribe: "ea9ed8fe0cdf",
    Parser.parse: "752b6d180e3b",
    Parser.reset: "b2abb80ac4fc",
    Subscription.__init__: "9f05ed5d58ca",
    Subscription._drain: "82c03e566c4c",
    Subscription.unsubscribe: "104b5e72de53",
    TcpTransport.connect: "37ea3adf80cf",
    TcpTransport.connect_tls: "da60653ad3ad",
}
"""What we replace, call, or rely on, and the digest of its source as it was read."""


def test_the_state_that_we_share_with_nats_py_is_there() -> None:
    state = set(vars(Client()))
    assert state >= READ, f"nats-py's client has lost {READ - state}"
    assert not state & ADDED, f"nats-py's client has names of ours: {state & ADDED}"
    assert set(vars(DirectClient())) == state | ADDED


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__qualname__)
def test_nats_py_does_what_it_did_when_its_source_was_read(method: Callable[..., object]) -> None:
    digest = hashlib.blake2b(inspect.getsource(method).encode(), digest_size=6).hexdigest()
    assert digest == METHODS[method], f"nats-py has changed {method.__qualname__}: read it again"


@pytest.mark.parametrize("name", ["_close", "_process_connect_init", "_send_command"])
def test_what_we_replace_is_still_called_as_we_expect(name: str) -> None:
    theirs = inspect.signature(getattr(Client, name)).parameters
    ours = inspect.signature(getattr(DirectClient, name)).parameters
    assert list(theirs) == list(ours)
