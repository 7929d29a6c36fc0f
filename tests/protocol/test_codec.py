# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import cast
from uuid import UUID

import msgpack
import pytest
from tests.protocol.examples import EXAMPLES

from helexa.protocol.codec import (
    Signable,
    pack,
    pack_canonical,
    pack_plain,
    unpack,
    unpack_canonical,
    unpack_plain,
)
from helexa.protocol.errors import MalformedError
from helexa.protocol.frames import FrameKind, pack_data, pack_frame
from helexa.protocol.messages.execution import ExecuteRequest
from helexa.protocol.messages.models import ModelConfig, ModelId
from helexa.protocol.messages.neurons import NeuronStatus
from helexa.protocol.messages.routing import ScheduleRequest


def test_a_message_survives_the_journey() -> None:
    sent = ScheduleRequest(request_id="g.r", model=ModelId("häuschen/7B"), workload="Embedding")
    assert unpack(ScheduleRequest, pack(sent)) == sent


@pytest.mark.accepts("PR-15")
def test_a_message_of_a_newer_peer_is_read_without_its_new_fields() -> None:
    newer = {"neuron_id": "n", "instance": "i", "sequence": 4, "invented_later": [1, 2]}
    assert unpack(NeuronStatus, pack_plain(newer)) == NeuronStatus(
        neuron_id="n", instance="i", sequence=4
    )


@pytest.mark.accepts("PR-15")
def test_a_record_of_a_newer_peer_keeps_its_new_fields() -> None:
    newer = {"model": "m", "backend_kind": "invented_later", "colour": "blue"}
    relayed = pack(unpack(ModelConfig, pack_plain(newer)))
    assert unpack(ModelConfig, relayed).model_extra == {"colour": "blue"}


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\xd9", b"\x91" * 2000, b"\x80", b"text"])
def test_bytes_that_are_no_message_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        unpack(ScheduleRequest, data)


def test_a_wrong_field_is_named() -> None:
    with pytest.raises(MalformedError) as caught:
        unpack(ScheduleRequest, pack_plain({"request_id": 5, "model": "m", "workload": "x"}))
    assert caught.value.param == "request_id"


ORDER = ExecuteRequest(
    request_id="g.r",
    home="g",
    owner="g",
    model=ModelId("base", {"adapter": "x"}),
    operation="chat",
    public_id="p",
    body=b"{}",
)


@pytest.mark.accepts("PR-15")
def test_a_hot_message_keeps_its_metadata_and_drops_what_a_newer_peer_has_added() -> None:
    newer = cast("dict[str, object]", unpack_plain(pack(ORDER))) | {"invented_later": [1, {}]}
    assert newer["model"] == {"0": "base", "metadata": {"adapter": "x"}}
    read = unpack(ExecuteRequest, pack_plain(newer))
    assert read == ORDER
    assert read.model.metadata == {"adapter": "x"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("request_id", 5),
        ("home", None),
        ("attempt", 0),
        ("first_seq", -1),
        ("model", ""),
        ("model", "x" * 256),
        ("body", 1.5),
        ("stream", "yes"),
        ("created", "now"),
    ],
)
def test_a_wrong_field_of_a_hot_message_is_named(field: str, value: object) -> None:
    fields = cast("dict[str, object]", unpack_plain(pack(ORDER)))
    with pytest.raises(MalformedError) as caught:
        unpack(ExecuteRequest, pack_plain(fields | {field: value}))
    assert caught.value.param == field


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x91" * 2000, b"\x80", pack_plain({"home": "g"}), pack_plain([1])]
)
def test_bytes_that_are_no_hot_message_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        unpack(ExecuteRequest, data)


@pytest.mark.parametrize(
    "value",
    [{1, 2}, UUID(int=1), timedelta(1), datetime(2026, 1, 1), Path("/"), Decimal(1)],  # noqa: DTZ001
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_wire_type_is_not_packed_and_leaves_nothing_behind(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        pack_plain(["before", value])
    assert unpack_plain(pack_plain(["after"])) == ["after"]


def test_a_time_with_a_zone_is_read_as_it_was_packed() -> None:
    now: object = datetime(2026, 11, 21, 1, 2, 3, 456789, tzinfo=UTC)
    assert unpack_plain(pack_plain(now)) == now


def test_large_and_small_messages_follow_each_other() -> None:
    for size in (1, 3_000_000, 2, 300_000, 3):
        assert unpack_plain(pack_plain(bytes(size))) == bytes(size)


@pytest.mark.parametrize("seed", range(20))
def test_damaged_messages_are_read_as_the_reference_reads_them(seed: int) -> None:
    random = Random(seed)  # noqa: S311 - the same cases in each run
    for example in EXAMPLES.values():
        data = bytearray(pack(example))
        for _ in range(random.randrange(1, 4)):
            data[random.randrange(len(data))] = random.randrange(256)
        try:
            expected = msgpack.unpackb(data, timestamp=3, strict_map_key=False)
        except (ValueError, TypeError, msgpack.UnpackException):
            expected = None
        try:
            read = unpack_plain(bytes(data))
        except MalformedError:
            read = None
        assert repr(read) == repr(expected) or "ExtType" in repr(expected), data


def test_a_canonical_record_has_one_encoding() -> None:
    assert pack_canonical({"b": 1, "a": [True, b"x"]}) == pack_canonical(
        {"a": [True, b"x"], "b": 1}
    )


@pytest.mark.parametrize("size", [0, 1, 15, 16, 31, 32, 255, 256, 65536])
@pytest.mark.parametrize("number", [0, 127, 128, 255, 256, 65536, 2**32, 2**64 - 1, -1, -33, -129])
def test_a_flat_record_is_packed_as_any_other(size: int, number: int) -> None:
    text = "é" * size
    flat: dict[str, Signable] = {"b": text, "é": number, "a": True, "\uffff": b"x" * size}
    flat |= {"ab": text + "x", "\U0001f600": False, "": number}
    held = dict(sorted(flat.items()))
    assert pack_canonical(flat) == msgpack.packb(held)
    assert pack_canonical(flat | {"a": [1]}) == msgpack.packb(held | {"a": [1]})


@pytest.mark.parametrize("value", [{"a": 1.5}, {"a": None}, {1: "a"}])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        pack_canonical(cast("Signable", value))


@pytest.mark.parametrize(
    "data",
    [
        b"\x82\xa1b\x01\xa1a\x01",
        b"\x81\xa1a\xcc\x01",
        b"\x81\xa1a\xc0",
        b"\x81\xa1a\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00",
    ],
    ids=["unsorted", "long integer", "null", "float"],
)
def test_another_encoding_of_a_record_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        unpack_canonical(data)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 65535, 65536, 2**32, 2**40])
@pytest.mark.parametrize("size", [0, 1, 255, 256, 65536])
def test_a_data_frame_is_packed_as_any_frame(number: int, size: int) -> None:
    text = b"x" * size
    data = pack_data(1, number, number, number, text)
    assert data == pack_frame(1, number, number, FrameKind.DATA, number, text)
