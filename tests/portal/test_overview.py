# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What visitors are told about models."""

import pytest

from helexa.portal.overview import Heard, model_rows
from helexa.protocol.codec import pack
from helexa.protocol.messages.models import (
    ModelCapability,
    ModelConfig,
    ModelId,
    ModelState,
    ModelStatus,
)
from helexa.protocol.messages.neurons import NeuronStatus
from helexa.protocol.reports import read_report

NOW_S = 1000.0
TINY = ModelId("tiny")
CATALOGUE = {"tiny": ModelConfig(model=TINY, backend_kind="llama_cpp", aliases=("small",))}


def heard(*models: ModelStatus, neuron: str = "n1", at_s: float = NOW_S) -> Heard:
    status = NeuronStatus(neuron_id=neuron, instance="i", sequence=1, models=models)
    return Heard(read_report(pack(status)), at_s)


def model(state: str, **more: object) -> ModelStatus:
    return ModelStatus.model_validate({"model": TINY, "state": state} | more)


@pytest.mark.parametrize(
    ("reports", "state", "told"),
    [
        ((), "idle", "Not loaded"),
        ((heard(model(ModelState.LOADED, slots_total=2)),), "ready", "Ready on 1 host"),
        (
            (
                heard(model(ModelState.LOADED, slots_total=2, slots_busy=2)),
                heard(model(ModelState.LOADED, slots_total=2), neuron="n2"),
            ),
            "ready",
            "Ready on 2 hosts",
        ),
        (
            (heard(model(ModelState.LOADED, slots_total=2, slots_busy=2)),),
            "busy",
            "Busy on 1 host, requests wait",
        ),
        ((heard(model(ModelState.LOADED, servable=False)),), "idle", "Not loaded"),
        ((heard(model(ModelState.LOADING, progress=0.452)),), "loading", "Loading, 45%"),
        ((heard(model(ModelState.LOADING)),), "loading", "Loading"),
        (
            (
                heard(
                    model(ModelState.FAILED, error="/secret/path"),
                ),
            ),
            "failed",
            "Failed to load",
        ),
        ((heard(model(ModelState.LOADED, slots_total=1), at_s=NOW_S - 6),), "idle", "Not loaded"),
    ],
)
def test_a_model_is_what_its_hosts_report(
    reports: tuple[Heard, ...], state: str, told: str
) -> None:
    [row] = model_rows(CATALOGUE, reports, NOW_S)

    assert (row.state, row.told) == (state, told)


def test_the_tightest_context_is_told() -> None:
    reports = [
        heard(
            model(ModelState.LOADED, capability=ModelCapability(max_context_tokens=tokens)),
            neuron=f"n{tokens}",
        )
        for tokens in (4096, 2048)
    ]

    [row] = model_rows(CATALOGUE, reports, NOW_S)

    assert row.context_tokens == 2048
    assert row.aliases == ("small",)


def test_only_models_of_the_catalogue_are_told_in_order() -> None:
    stray = ModelStatus(model=ModelId("stray"), state=ModelState.LOADED)
    catalogue = CATALOGUE | {"a": ModelConfig(model=ModelId("a"), backend_kind="vllm")}

    rows = model_rows(catalogue, [heard(stray)], NOW_S)

    assert [row.name for row in rows] == ["a", "tiny"]
