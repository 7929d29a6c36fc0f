# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
from random import Random

import pytest
from nats.aio.client import Client

from helexa.bus import headers

BLOCKS = [
    b"NATS/1.0\r\n\r\n",
    b"NATS/1.0 503\r\n\r\n",
    b"NATS/1.0 404 No Messages\r\n\r\n",
    b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1016\r\nNats-Last-Stream: 1024\r\n\r\n",
    b"NATS/1.0\r\nHelexa-Remaining-Ms: 2000\r\ntraceparent: 00-ab-cd-01\r\n\r\n",
    b"NATS/1.0\r\nNo-Blank:value\r\nTab:\tvalue \r\nEmpty:\r\n Before : x\r\n\r\n",
    b"NATS/1.0\r\nA: 1\r\nA: 2\r\na: 3\r\n\r\n",
    b"NATS/1.0\r\nUrl: nats://host:4222\r\nNo header\r\nTwo words: x\r\n\r\n",
    "NATS/1.0\r\nName: caf\u00e9\r\nN\u00e4me: x\r\n\r\n".encode(),
    b"NATS/1.0\r\nBroken: \xff\xfe\r\n\r\n",
]


@pytest.mark.parametrize("block", BLOCKS)
async def test_headers_of_others_read_as_nats_py_reads_them(block: bytes) -> None:
    theirs = await Client()._process_headers(block)  # noqa: SLF001 - the rule to be like
    assert headers.decode(block) == (theirs or {})


def test_headers_read_as_they_were_written() -> None:
    random = Random(1)  # noqa: S311 - the same cases in each run
    for _ in range(200):
        fields = {
            f"Name-{number}": "".join(random.choices("abc: =,\u00e9\u4e16", k=random.randrange(9)))
            for number in range(random.randrange(5))
        }
        read = headers.decode(headers.encode(fields))
        assert read == {name: value.strip() for name, value in fields.items()}


def test_no_value_can_add_a_header_or_an_operation() -> None:
    block = headers.encode({"A": "x\r\nB: y\r\n\r\nPUB secret 0\r\n"})
    assert headers.decode(block) == {"A": "x  B: y    PUB secret 0"}
    assert block.count(b"\r\n") == 3
