# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The short way of messages does what nats-py's long one did."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import nats.errors
import pytest
from tests.conftest import Broker

from helexa.bus.client import PENDING_WHILE_AWAY_BYTES, Bus
from helexa.bus.connection import Connection
from helexa.bus.direct import DirectClient
from helexa.protocol.errors import UnavailableError
from helexa.protocol.naming import random_id

PATIENCE_S = 20.0


@pytest.fixture
def subject() -> str:
    return f"test.{random_id(60)}"


@pytest.fixture
async def own(broker: Broker) -> AsyncIterator[Bus]:
    """A bus at a server that the test may stop."""
    async with Bus(Connection((broker.url,), "own")) as made:
        await made.wait_connected()
        yield made


async def until(seen: list[bytes], count: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while len(seen) < count:
            await asyncio.sleep(0.01)


async def test_a_flush_comes_after_what_was_published_and_what_it_brought(
    bus: Bus, subject: str
) -> None:
    seen: list[bytes] = []
    await bus.subscribe_raw(subject, lambda _, data: seen.append(data))
    sent = [str(number).encode() for number in range(2000)]
    for data in sent:
        await bus.publish_raw(subject, data)
    await bus.client.flush()
    assert seen == sent


async def test_a_subscription_that_is_drained_has_taken_what_came_before(
    bus: Bus, subject: str
) -> None:
    seen: list[bytes] = []
    subscription = await bus.subscribe_raw(subject, lambda _, data: seen.append(data))
    for _ in range(500):
        await bus.publish_raw(subject, b"before")
    await subscription.drain()
    await bus.publish_raw(subject, b"after")
    await bus.client.flush()
    assert seen == [b"before"] * 500


async def test_large_and_small_messages_keep_their_order(bus: Bus, subject: str) -> None:
    seen: list[bytes] = []
    await bus.subscribe_raw(subject, lambda _, data: seen.append(data))
    sent = [bytes([number]) * (700_000 if number % 3 == 0 else 10) for number in range(30)]
    for data in sent:
        await bus.publish_raw(subject, data)
    await until(seen, 30)
    assert seen == sent


async def test_a_publisher_waits_for_a_server_that_does_not_read_and_loses_nothing(
    own: Bus, broker: Broker, subject: str
) -> None:
    seen: list[bytes] = []
    waits = asyncio.Event()

    async def publish() -> None:
        for number in range(600):
            data = number.to_bytes(2) + bytes(64 * 1024)
            task = asyncio.ensure_future(own.publish_raw(subject, data))
            while not task.done():
                await asyncio.wait({task}, timeout=0.5)
                # On a busy machine one may also be slow that does not wait.
                if not task.done() and held_back(own) > PENDING_WHILE_AWAY_BYTES // 2:
                    waits.set()

    async with Bus(Connection((broker.url,), "reader")) as reader:
        await reader.subscribe_raw(subject, lambda _, data: seen.append(data[:2]))
        await reader.client.flush()
        assert broker.process is not None
        broker.process.send_signal(signal.SIGSTOP)
        try:
            publishing = asyncio.create_task(publish())
            await asyncio.wait_for(waits.wait(), PATIENCE_S)
            held = held_back(own)
        finally:
            broker.process.send_signal(signal.SIGCONT)
        await asyncio.wait_for(publishing, PATIENCE_S)
        await until(seen, 600)
    # One part waits for its turn, the other one is in the socket's buffer.
    assert held < 2 * PENDING_WHILE_AWAY_BYTES + 256 * 1024
    assert seen == [number.to_bytes(2) for number in range(600)]


def held_back(bus: Bus) -> int:
    socket = bus.client._socket  # noqa: SLF001 - nobody else needs to know
    assert socket is not None
    return bus.client.pending_data_size + socket.get_write_buffer_size()


async def test_what_is_published_while_the_server_is_away_is_sent_when_it_is_back(
    own: Bus, broker: Broker, subject: str
) -> None:
    seen: list[bytes] = []
    away, back = asyncio.Event(), asyncio.Event()
    own.client._disconnected_cb = note(away)  # noqa: SLF001 - nobody else needs to know
    own.on_reconnected(note(back))
    await own.subscribe_raw(subject, lambda _, data: seen.append(data))
    broker.stop()
    await asyncio.wait_for(away.wait(), PATIENCE_S)
    sent = [str(number).encode() for number in range(100)]
    for data in sent:
        await own.publish_raw(subject, data)
    piece = bytes(500_000)
    for _ in range(PENDING_WHILE_AWAY_BYTES // len(piece)):
        await own.publish_raw(f"{subject}.other", piece)
    with pytest.raises(UnavailableError):
        await own.publish_raw(f"{subject}.other", piece)
    broker.start()
    await asyncio.wait_for(back.wait(), PATIENCE_S)
    await until(seen, 100)
    assert seen == sent


async def test_leaving_ends_well_while_the_server_is_away_and_something_waits_for_it(
    broker: Broker, subject: str
) -> None:
    away = asyncio.Event()
    async with asyncio.timeout(PATIENCE_S), Bus(Connection((broker.url,), "test")) as bus:
        await bus.wait_connected()
        bus.client._disconnected_cb = note(away)  # noqa: SLF001 - nobody else needs to know
        broker.stop(kill=True)
        await away.wait()
        await bus.publish_raw(subject, b"for nobody")


async def test_the_first_of_two_replies_counts_and_later_ones_harm_nobody(
    bus: Bus, subject: str
) -> None:
    def answer_twice(_: str, reply: str, data: bytes, __: bytes) -> None:
        bus.client.send(reply, b"first " + data)
        bus.client.send(reply, b"second " + data)

    await bus.client.listen(subject, answer_twice)
    for data in (b"a", b"b"):
        assert (await bus.client.request(subject, data, timeout=5)).data == b"first " + data


async def test_a_reply_that_comes_too_late_is_nobodys(bus: Bus, subject: str) -> None:
    asked: asyncio.Queue[str] = asyncio.Queue()
    await bus.client.listen(subject, lambda _, reply, __, ___: asked.put_nowait(reply))
    with pytest.raises(nats.errors.TimeoutError):
        await bus.client.request(subject, b"", timeout=0.05)
    bus.client.send(await asked.get(), b"late")
    leaving = asyncio.create_task(bus.client.request(subject, b"", timeout=30))
    reply = await asked.get()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    bus.client.send(reply, b"nobody waits")
    await bus.client.flush()
    assert not bus.client._awaited  # noqa: SLF001 - nothing is left behind
    assert bus.is_connected


async def test_replies_cannot_be_foretold(bus: Bus, subject: str) -> None:
    seen: list[str] = []

    def answer(_: str, reply: str, __: bytes, ___: bytes) -> None:
        seen.append(reply)
        bus.client.send(reply, b"")

    await bus.client.listen(subject, answer)
    for _ in range(200):
        await bus.client.request(subject, b"", timeout=5)
    tokens = {reply.rpartition(".")[2] for reply in seen}
    assert len(tokens) == 200
    assert min(map(len, tokens)) == 26
    for at in range(26):
        assert len({token[at] for token in tokens}) > 16


@pytest.mark.parametrize("nonsense", [b"MSG nonsense\r\n", b"INFO {\r\n", b"-ERR '\xff'\r\n"])
async def test_a_server_that_talks_nonsense_is_left_and_met_again(
    nonsense: bytes, subject: str
) -> None:
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.write(b'INFO {"max_payload":1048576,"headers":true}\r\n')
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
            elif line.startswith(b"SUB ") and connections == 1:
                writer.write(nonsense + b"MSG " + subject.encode() + b" 1 2\r\nno\r\n")
            elif line.startswith(b"SUB "):
                writer.write(b"MSG " + subject.encode() + b" 1 3\r\nyes\r\n")
        writer.close()

    seen: list[bytes] = []
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Bus(Connection((f"nats://127.0.0.1:{port}",), "test")) as bus:
        await bus.subscribe_raw(subject, lambda _, data: seen.append(data))
        await until(seen, 1)
    assert seen == [b"yes"]
    assert connections == 2


async def test_a_message_with_a_subject_that_is_no_text_is_passed_over(
    bus: Bus, subject: str
) -> None:
    seen: list[bytes] = []
    await bus.subscribe_raw(f"{subject}.*", lambda _, data: seen.append(data))
    client: DirectClient = bus.client
    client._emit(b"PUB " + subject.encode() + b".\xff 3\r\nbad\r\n")  # noqa: SLF001 - not sayable
    await bus.publish_raw(f"{subject}.x", b"good")
    await until(seen, 1)
    assert seen == [b"good"]


def note(event: asyncio.Event) -> Callable[[], Awaitable[None]]:
    async def called() -> None:
        event.set()

    return called
