# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
from random import Random

import pytest
from nats.aio.client import Client

from helexa.bus import headers
from helexa.bus.context import REQUEST_ID, TRACEPARENT

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


REQUESTS = [
    b"",
    *BLOCKS,
    b"NATS/1.0\r\nHelexa-Remaining-Ms: 0\r\n\r\n",
    b"NATS/1.0\r\nHelexa-Remaining-Ms: 2000\r\nHelexa-Request-Id: g.r\r\n\r\n",
    b"NATS/1.0\r\nHelexa-Request-Id: g.r\r\nHelexa-Remaining-Ms: 2000\r\n\r\n",
    b"NATS/1.0\r\nHelexa-Remaining-Ms: soon\r\nHelexa-Request-Id: g.r \r\n\r\n",
    b"NATS/1.0\r\nHelexa-Remaining-Ms: 7\r\nHelexa-Request-Id: a b\r\nHelexa-Claim: c\r\n\r\n",
    b"NATS/1.0\r\nHelexa-Remaining-Ms: 7\r\ntraceparent: 0\r\nHelexa-Claim: c\r\nB: x\r\n\r\n",
]


@pytest.mark.parametrize("block", REQUESTS)
def test_what_a_request_tells_is_what_its_headers_say(block: bytes) -> None:
    fields = headers.decode(block)
    told = headers.incoming(block)
    text = fields.get(headers.REMAINING_MS_HEADER, "")
    assert told.remaining_s == (int(text) / 1000 if text.isdecimal() else None)
    assert told.request_id == fields.get(headers.REQUEST_ID_HEADER, "")
    assert told.traceparent == fields.get(headers.TRACEPARENT_HEADER, "")
    assert told.claim == fields.get(headers.CLAIM_HEADER, "")


@pytest.mark.parametrize("request_id", ["", "gate.req", "caf\u00e9 x", "x\r\ny"])
@pytest.mark.parametrize("claim", ["", "body1"])
def test_a_request_tells_what_its_sender_knew(request_id: str, claim: str) -> None:
    tokens = REQUEST_ID.set(request_id), TRACEPARENT.set("00-ab-cd-01")
    try:
        told = headers.incoming(headers.outgoing(1.5, claim))
    finally:
        REQUEST_ID.reset(tokens[0])
        TRACEPARENT.reset(tokens[1])
    assert told == headers.Told(1.5, request_id.replace("\r\n", "  "), "00-ab-cd-01", claim)


def test_a_time_that_no_caller_can_mean_is_none() -> None:
    block = b"NATS/1.0\r\nHelexa-Remaining-Ms: " + b"9" * 5000 + b"\r\n\r\n"
    assert headers.incoming(block).remaining_s is None
