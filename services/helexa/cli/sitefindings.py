# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What `helexa doctor` finds out about the servers of a running site."""

import asyncio
import contextlib
from datetime import UTC, datetime

from pydantic import BaseModel, ValidationError

from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.cli.findings import Finding
from helexa.protocol import subjects
from helexa.protocol.naming import random_id

CONNECT_WITHIN_S = 3.0
ANSWER_WITHIN_S = 2.0
MAX_PAYLOAD_BYTES = 8 * 1024 * 1024
CLOCK_SKEW_S = 5.0


class _Server(BaseModel):
    name: str = ""
    time: datetime | None = None


class _JetStream(BaseModel):
    sync_always: bool = False


class _State(BaseModel):
    config: _JetStream = _JetStream()


class _Answer(BaseModel):
    server: _Server = _Server()
    data: _State = _State()


async def site_findings(admin: Connection, system: Connection) -> list[Finding]:
    """Look at the site's servers: reachable, large payloads, durable writes, the same time."""
    async with Bus(admin) as bus:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(bus.wait_connected(), CONNECT_WITHIN_S)
        where = ", ".join(admin.servers)
        if not bus.is_connected:
            text = f"{where} cannot be reached ({bus.last_error or 'no answer'}); start the site"
            return [Finding("site", is_fine=False, text=text)]
        found = [Finding("site", is_fine=True, text=where), _payload(bus.client.max_payload)]
    async with Bus(system) as bus:
        answer = await _jetstream(bus)
    return [*found, *_state(answer, datetime.now(UTC))]


def _payload(found_bytes: int) -> Finding:
    mib = found_bytes / (1 << 20)
    if found_bytes < MAX_PAYLOAD_BYTES:
        text = f"{mib:.1f} MiB; set max_payload: 8MB on the server, or images cannot travel"
        return Finding("max_payload", is_fine=False, text=text)
    return Finding("max_payload", is_fine=True, text=f"{mib:.0f} MiB")


async def _jetstream(bus: Bus) -> _Answer | None:
    answers: asyncio.Queue[bytes] = asyncio.Queue()
    try:
        await asyncio.wait_for(bus.wait_connected(), CONNECT_WITHIN_S)
        async with asyncio.timeout(ANSWER_WITHIN_S):
            inbox = f"{bus.connection.inbox_prefix}.{random_id()}"
            await bus.subscribe_raw(inbox, lambda _, data: answers.put_nowait(data))
            await bus.client.publish(subjects.SERVER_PING_JETSTREAM, b"{}", reply=inbox)
            return _Answer.model_validate_json(await answers.get())
    except (TimeoutError, ValidationError):
        return None


def _state(answer: _Answer | None, now: datetime) -> list[Finding]:
    if answer is None:
        text = "the server does not tell its state; it needs a system account user"
        return [Finding("JetStream", is_fine=False, text=text)]
    found = []
    if answer.data.config.sync_always:
        found.append(Finding("JetStream", is_fine=True, text="each write is synced"))
    else:
        text = "a power cut can lose acknowledged writes; set sync_interval: always"
        found.append(Finding("JetStream", is_fine=False, text=text))
    if answer.server.time is not None:
        skew_s = abs((now - answer.server.time).total_seconds())
        fine = skew_s <= CLOCK_SKEW_S
        text = f"{skew_s:.1f} s from the server's"
        text += "" if fine else "; let NTP set both clocks (timedatectl set-ntp true)"
        found.append(Finding("clock", is_fine=fine, text=text))
    return found
