# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a gateway knows of the neurons, and at what cost."""

import time
from dataclasses import dataclass, field

from helexa.gateway.catalogue import Catalogue
from helexa.gateway.fleet import FORGET_S, SILENT_S, Fleet, Seats
from helexa.protocol.messages.models import ModelConfig, ModelId, ModelState
from helexa.protocol.reports import CapabilityReport, ModelReport, NeuronReport


def loaded(name: str, *workloads: str, busy: int = 0) -> ModelReport:
    capability = CapabilityReport(workloads=workloads or ("chat",))
    return ModelReport(
        ModelId(name), ModelState.LOADED, slots_total=4, slots_busy=busy, capability=capability
    )


def report(neuron: str, *models: ModelReport, sequence: int = 1) -> NeuronReport:
    return NeuronReport(neuron, "i", sequence, models=models)


@dataclass
class Kept:
    values: dict[str, ModelConfig] = field(default_factory=dict)
    is_fresh: bool = True

    async def get(self, key: str) -> ModelConfig | None:
        return self.values.get(key)


def test_a_model_is_where_the_last_reports_say() -> None:
    fleet = Fleet()
    fleet.take(report("n1", loaded("a"), loaded("b")), 0.0)
    fleet.take(report("n2", loaded("a", busy=3)), 0.0)
    assert fleet.seats("a", 0.0) == Seats(free=5, total=8)
    assert fleet.models(0.0) == {"a", "b"}
    fleet.take(report("n1", loaded("b"), sequence=2), 0.5)
    assert fleet.seats("a", 0.5) == Seats(free=1, total=4)
    assert set(fleet.serving("b", 0.5)) == {"n1"}
    fleet.take(report("n2", sequence=2), 0.6)
    assert fleet.models(0.6) == {"b"}
    assert not fleet.can_go_on("a")


def test_who_is_silent_does_not_count_and_is_forgotten_later() -> None:
    fleet = Fleet()
    # A report that names a model twice is nonsense, and harms nobody.
    fleet.take(report("n1", loaded("a"), loaded("a")), 0.0)
    silent = SILENT_S + 0.1
    fleet.take(report("n2", loaded("b")), silent)
    assert fleet.models(silent) == {"b"}
    assert fleet.statuses("a", silent) == []
    assert fleet.silence_s("n1", silent) == silent
    fleet.take(report("n2", loaded("b"), sequence=2), FORGET_S + 1)
    assert fleet.silence_s("n1", FORGET_S + 1) == float("inf")
    fleet.take(report("n1", loaded("a")), FORGET_S + 2)
    assert fleet.models(FORGET_S + 2) == {"a", "b"}


def test_an_edition_ends_with_what_a_model_can_do_and_not_with_its_load() -> None:
    fleet = Fleet()
    editions = []
    for sequence, model in enumerate((loaded("a"), loaded("a", busy=1), loaded("a", "vision"))):
        fleet.take(report("n1", model, sequence=sequence), 0.0)
        editions.append(fleet.editions["a"])
    fleet.take(report("n1", sequence=3), 0.0)
    assert [*editions, fleet.editions["a"]] == [1, 1, 2, 3]


def test_what_a_model_can_do_is_news_at_once() -> None:
    fleet = Fleet()
    catalogue = Catalogue(Kept(), fleet, lambda: True)
    now = time.monotonic()
    fleet.take(report("n1", loaded("a", "chat")), now)
    assert catalogue.workloads("a", None) == {"chat"}
    fleet.take(report("n2", loaded("a", "vision")), now)
    assert catalogue.workloads("a", None) == {"chat", "vision"}
    fleet.take(report("n1", sequence=2), now)
    assert catalogue.workloads("a", None) == {"vision"}


def test_a_question_about_a_model_costs_the_same_however_many_neurons_there_are() -> None:
    fleet = Fleet()
    catalogue = Catalogue(Kept(), fleet, lambda: True)
    now = time.monotonic()
    for number in range(5000):
        fleet.take(report(f"n{number}", loaded(f"m{number % 1000}"), loaded("common")), now)
    began = time.process_time()
    for _ in range(1000):
        fleet.seats("m7", now)
        catalogue.workloads("common", None)
    assert len(catalogue.listed(lambda _: True)) == 1001
    assert time.process_time() - began < 1.0
