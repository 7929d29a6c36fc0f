# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Who may report what is not said by the report."""

import asyncio

from helexa.bus.client import Bus
from helexa.bus.reports import hear_reports, status_subject
from helexa.protocol.codec import pack, pack_plain, unpack
from helexa.protocol.messages.neurons import NeuronStatus
from helexa.protocol.naming import random_id
from helexa.protocol.reports import NeuronReport


async def test_a_neuron_is_heard_about_itself_alone(bus: Bus) -> None:
    mine, other = f"host.{random_id()}", f"host.{random_id()}"
    heard: asyncio.Queue[tuple[NeuronReport, bytes]] = asyncio.Queue()

    def take(report: NeuronReport, data: bytes) -> None:
        if report.neuron_id in (mine, other):
            heard.put_nowait((report, data))

    await hear_reports(bus, take)
    said = [NeuronStatus(neuron_id=name, instance="i", sequence=1) for name in (other, mine)]
    subject = status_subject(mine)
    await bus.publish_raw(subject, pack_plain("nonsense"))
    for status in said:
        await bus.publish_raw(subject, pack(status))
    report, data = await asyncio.wait_for(heard.get(), 10)
    assert report.neuron_id == mine
    assert unpack(NeuronStatus, data) == said[1]
    assert heard.empty()
