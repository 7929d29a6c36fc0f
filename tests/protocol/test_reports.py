# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What is read of a neuron's status is what the status says."""

import msgspec
import pytest
from pydantic import BaseModel
from tests.protocol.examples import EXAMPLES

from helexa.protocol.codec import pack, pack_plain, unpack
from helexa.protocol.errors import MalformedError
from helexa.protocol.messages.models import ModelCapability, ModelId, ModelStatus, Price
from helexa.protocol.messages.neurons import NeuronStatus
from helexa.protocol.reports import (
    CapabilityReport,
    ModelReport,
    NeuronReport,
    PriceReport,
    read_report,
)

BARE = NeuronStatus(neuron_id="n", instance="i", sequence=1)
STATUSES = [
    pack(each)
    for each in (
        *(each for each in EXAMPLES.values() if isinstance(each, NeuronStatus)),
        BARE,
        BARE.model_copy(update={"models": (ModelStatus(model=ModelId("模"), state="new"),)}),
    )
]


@pytest.mark.parametrize(
    ("report", "message", "left_out"),
    [
        (CapabilityReport, ModelCapability, set()),
        (PriceReport, Price, set()),
        (ModelReport, ModelStatus, set()),
        (NeuronReport, NeuronStatus, {"hardware"}),
    ],
)
def test_a_report_has_the_fields_of_its_message(
    report: type[msgspec.Struct], message: type[BaseModel], left_out: set[str]
) -> None:
    assert set(report.__struct_fields__) == set(message.model_fields) - left_out
    told = {each.name: each.default for each in msgspec.structs.fields(report)}
    for name, default in told.items():
        field = message.model_fields[name]
        if field.is_required():
            assert default is msgspec.NODEFAULT
        elif not isinstance(default, msgspec.Struct):
            assert default == field.default


@pytest.mark.parametrize("data", STATUSES)
def test_a_report_says_what_the_status_says(data: bytes) -> None:
    whole = unpack(NeuronStatus, data).model_dump(exclude={"hardware"})
    report = read_report(data)
    assert msgspec.to_builtins(report, enc_hook=str, builtin_types=[bytes]) | {
        "models": ()
    } == whole | {"models": ()}
    for read, told in zip(report.models, unpack(NeuronStatus, data).models, strict=True):
        assert read.model == told.model
        assert read.model.metadata == told.model.metadata
        plain = msgspec.to_builtins(read, enc_hook=str, builtin_types=[bytes]) | {"model": ""}
        assert plain == told.model_dump() | {"model": ""}


def test_what_a_newer_neuron_adds_is_passed_over() -> None:
    newer = BARE.model_dump() | {"mood": "good", "models": [{"model": "m", "state": "x", "y": 1}]}
    assert read_report(pack_plain(newer)).models == (ModelReport(ModelId("m"), "x"),)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\xc0" * 8,
        b"\x91" * 100_000,
        pack_plain([1]),
        pack_plain({"neuron_id": "n"}),
        pack_plain({"neuron_id": "n", "instance": "i", "sequence": "1"}),
        pack_plain({"neuron_id": "n", "instance": "i", "sequence": 1, "models": [{"model": ""}]}),
        pack_plain({"neuron_id": "n", "instance": b"\xff", "sequence": 1}),
        b"\x83\xa9neuron_id\xa1\xff\xa8instance\xa1i\xa8sequence\x01",
        pack_plain(BARE.model_dump() | {"models": [{"model": "m" * 256, "state": "x"}]}),
    ],
)
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        read_report(data)
