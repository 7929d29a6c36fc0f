# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
from typing import cast

import pytest

from helexa.protocol.codec import (
    Signable,
    pack,
    pack_canonical,
    pack_plain,
    unpack,
    unpack_canonical,
)
from helexa.protocol.errors import MalformedError
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


def test_a_canonical_record_has_one_encoding() -> None:
    assert pack_canonical({"b": 1, "a": [True, b"x"]}) == pack_canonical(
        {"a": [True, b"x"], "b": 1}
    )


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
