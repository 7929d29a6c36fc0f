# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
from random import SystemRandom

import pytest

from helexa.protocol.codec import pack
from helexa.protocol.messages.models import ModelConfig, ModelId, ModelState, ModelStatus
from helexa.protocol.messages.neurons import NeuronStatus
from helexa.protocol.messages.routing import Feedback, Outcome, ScheduleRequest
from helexa.protocol.reports import NeuronReport, read_report
from helexa.scheduler.candidates import Candidate
from helexa.scheduler.feasibility import Workload
from helexa.scheduler.fleet import Fleet
from helexa.scheduler.history import History

M = ModelId("m")


def test_nothing_is_known_of_a_replica_that_never_served() -> None:
    found = History(10).of("a", "m", 0)
    assert (found.first_token_s, found.confidence, found.error_rate) == (None, 0.0, 0.0)


def test_newer_observations_count_more() -> None:
    history = History(half_life_s=10)
    history.first_token("a", "m", 1.0, now=0)
    history.first_token("a", "m", 4.0, now=10)
    assert history.of("a", "m", 10).first_token_s == pytest.approx(3.0)


@pytest.mark.accepts("FLOW-6", "FLOW-7")
def test_a_failing_replica_recovers_with_time() -> None:
    history = History(half_life_s=10)
    history.attempts("a", "m", completed=0, failed=500, now=0)
    rates = [history.of("a", "m", now).error_rate for now in (0, 20, 60, 120)]
    assert rates[0] > 0.9
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.05


@pytest.mark.accepts("FLOW-7")
def test_good_answers_make_up_for_failures() -> None:
    history = History(half_life_s=10)
    history.attempts("a", "m", completed=0, failed=10, now=0)
    history.attempts("a", "m", completed=90, failed=0, now=1)
    assert history.of("a", "m", 1).error_rate < 0.15


def test_one_failure_of_a_newcomer_is_not_held_to_be_its_nature() -> None:
    history = History(half_life_s=10)
    history.attempts("a", "m", completed=0, failed=1, now=0)
    assert history.of("a", "m", 0).error_rate < 0.5


def test_experience_is_kept_apart_by_neuron_and_model() -> None:
    history = History(half_life_s=10)
    history.attempts("a", "m", completed=0, failed=9, now=0)
    assert history.of("a", "n", 0).error_rate == 0
    assert history.of("b", "m", 0).error_rate == 0


def status(
    sequence: int = 1, busy: int = 0, instance: str = "i", neuron: str = "a"
) -> NeuronReport:
    model = ModelStatus(model=M, state=ModelState.LOADED, slots_total=4, slots_busy=busy)
    told = NeuronStatus(
        neuron_id=neuron,
        instance=instance,
        sequence=sequence,
        slots_total=8,
        slots_busy=busy,
        models=(model,),
    )
    return read_report(pack(told))


def fleet() -> Fleet:
    return Fleet(History(10), forget_after_s=60)


def seen(known: Fleet, now: float) -> list[Candidate]:
    """Return the candidates as a decision sees them."""
    known.forget_silent(now)
    asked = ScheduleRequest(request_id="r", model=M, workload="ChatInteractive")
    config = ModelConfig(model=M, backend_kind="any")
    return list(known.replicas("m").best(Workload(asked, config, 3.0, now), SystemRandom()))


def test_own_decisions_count_as_load_until_the_next_report() -> None:
    known = fleet()
    known.report(status(1), 0)
    known.decided("a", "m")
    known.decided("a", "other")
    (found,) = seen(known, 0.1)
    assert (found.neuron.slots_busy, found.model_slots_busy) == (2, 1)
    known.report(status(2, busy=1), 0.2)
    assert (found.neuron.slots_busy, found.model_slots_busy) == (1, 1)


def test_a_report_that_was_overtaken_is_dropped() -> None:
    known = fleet()
    known.report(status(5, busy=3), 0)
    known.report(status(4, busy=0), 0.1)
    assert seen(known, 0.2)[0].neuron.slots_busy == 3


def test_a_restarted_neuron_starts_with_a_clean_record() -> None:
    known = fleet()
    known.report(status(5), 0)
    known.feedback(Feedback(gateway="g", outcomes=(Outcome(neuron_id="a", model=M, failed=9),)), 0)
    assert seen(known, 0)[0].experience.error_rate > 0.5
    known.report(status(1, instance="j"), 1)
    assert seen(known, 1)[0].experience.error_rate == 0


def test_being_refused_for_want_of_room_is_no_failure() -> None:
    known = fleet()
    known.report(status(), 0)
    outcome = Outcome(neuron_id="a", model=M, refused=50, first_token_s=(0.2,))
    known.feedback(Feedback(gateway="g", outcomes=(outcome,)), 0)
    experience = seen(known, 0)[0].experience
    assert (experience.error_rate, experience.first_token_s) == (0.0, 0.2)


@pytest.mark.accepts("CX-8")
def test_a_silent_neuron_ages_and_is_forgotten() -> None:
    known = fleet()
    known.report(status(), 0)
    assert seen(known, 2.5)[0].neuron.seen_at == 0
    assert seen(known, 61) == []
    assert known.size == 0
