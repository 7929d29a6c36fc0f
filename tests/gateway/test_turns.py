# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The rules of waiting: who is next, what is counted, who may claim what."""

import asyncio
import hashlib
import time
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace
from tests.gateway.roles import soon

from helexa.gateway.authority import Caller, SettingsAuthority
from helexa.gateway.fleet import Fleet, Seats
from helexa.gateway.gateway import part_of
from helexa.gateway.line import Bounds, Place
from helexa.gateway.priority import Priority, Standing, asked_priority
from helexa.gateway.turns import PASSED_OVER_LIMIT, Turns
from helexa.gateway.waiting import Lines
from helexa.protocol.errors import (
    BadRequestError,
    NoCapacityError,
    QueueFullError,
    RateLimitedError,
    ShuttingDownError,
    UnauthorizedError,
)
from helexa.protocol.messages.models import ModelId, ModelState
from helexa.protocol.reports import ModelReport, NeuronReport

ADA, BEA = Standing("ada"), Standing("bea")
URGENT = Standing("ada", Priority.INTERACTIVE)
BULK = Standing("ada", Priority.BULK)
NOBODY = Standing(yields=True)


@dataclass(eq=False)
class Waiting:
    standing: Standing
    name: str = ""


def served(turns: Turns[Waiting], *, ends: bool = True) -> Waiting:
    """Serve who is next."""
    waiter = turns.next()
    assert waiter is not None
    turns.give(waiter)
    turns.use(waiter)
    if ends:
        turns.take_back(waiter)
    return waiter


def waiting(*standings: Standing) -> Turns[Waiting]:
    turns: Turns[Waiting] = Turns()
    for number, standing in enumerate(standings):
        turns.add(Waiting(standing, str(number)))
    return turns


def test_the_first_request_of_a_key_waits_for_one_turn_of_each_other_key_at_most() -> None:
    turns = waiting(*[ADA] * 500)
    served(turns)
    turns.add(Waiting(BEA))
    order = [served(turns).standing.key for _ in range(2)]
    assert "bea" in order


def test_keys_take_turns_and_requests_of_a_key_keep_their_order() -> None:
    turns = waiting(ADA, ADA, ADA, BEA, BEA, Standing("cora"))
    order = [served(turns) for _ in range(6)]
    assert [each.standing.key for each in order] == ["ada", "bea", "cora", "ada", "bea", "ada"]
    assert [each.name for each in order if each.standing == ADA] == ["0", "1", "2"]


def test_what_a_key_has_at_work_counts() -> None:
    turns = waiting(*[ADA] * 8)
    for _ in range(6):
        served(turns, ends=False)
    for _ in range(4):
        turns.add(Waiting(BEA))
    keys = [served(turns, ends=False).standing.key for _ in range(6)]
    assert keys == ["bea"] * 4 + ["ada"] * 2


def test_a_lower_class_is_passed_over_a_bounded_number_of_times() -> None:
    turns = waiting(*[URGENT] * 100, BULK, ADA)
    order = [served(turns).standing.priority for _ in range(2 * PASSED_OVER_LIMIT + 2)]
    assert order[:PASSED_OVER_LIMIT] == [Priority.INTERACTIVE] * PASSED_OVER_LIMIT
    assert set(order[PASSED_OVER_LIMIT : PASSED_OVER_LIMIT + 2]) == {
        Priority.DEFAULT,
        Priority.BULK,
    }
    assert set(order[PASSED_OVER_LIMIT + 2 :]) == {Priority.INTERACTIVE}


def test_a_turn_of_no_use_neither_passes_over_nor_is_lost() -> None:
    turns = waiting(*[URGENT] * 100, BULK)
    for _ in range(3 * PASSED_OVER_LIMIT):
        tried = turns.next()
        assert tried is not None
        assert tried.standing == URGENT
        turns.give(tried)
        turns.put_back(tried)
    first = served(turns)
    assert first.name == "0"
    for _ in range(PASSED_OVER_LIMIT - 1):
        served(turns)
    for _ in range(3):
        tried = turns.next()
        assert tried is not None
        assert tried.standing == BULK
        turns.give(tried)
        turns.put_back(tried)
    assert served(turns).standing == BULK


def test_who_yields_goes_after_all_others_however_long_it_has_waited() -> None:
    turns = waiting(NOBODY, NOBODY._replace(priority=Priority.INTERACTIVE), *[BULK] * 50)
    order = [served(turns).standing for _ in range(52)]
    assert order[:50] == [BULK] * 50
    last = turns.last_yielding()
    assert last is None


def test_after_everybody_has_left_nothing_is_counted() -> None:
    turns = waiting(ADA, BEA, URGENT, BULK, NOBODY)
    given = turns.next()
    assert given is not None
    turns.give(given)
    for each in list(turns):
        turns.remove(each)
    turns.take_back(given)
    assert turns.waiting == 0
    assert turns.next() is None
    assert not any(turns.held(key) for key in ("ada", "bea", ""))


@pytest.mark.parametrize(
    ("header", "tier", "asked"),
    [
        ("", None, None),
        ("interactive", None, Priority.INTERACTIVE),
        ("default", "priority", Priority.DEFAULT),
        ("", "priority", Priority.INTERACTIVE),
        ("", "auto", None),
        ("auto", "flex", Priority.BULK),
        ("BULK", None, Priority.BULK),
        ("batch", None, Priority.BULK),
    ],
)
def test_the_header_goes_before_the_field(
    header: str, tier: str | None, asked: Priority | None
) -> None:
    assert asked_priority(header, tier, may_claim=True) == asked


def test_who_may_not_go_first_gains_nothing_by_asking() -> None:
    assert asked_priority("interactive", None, may_claim=False) is None
    assert asked_priority("", "priority", may_claim=False) is None
    assert asked_priority("bulk", None, may_claim=False) is Priority.BULK
    with pytest.raises(BadRequestError, match="x-helexa-priority"):
        asked_priority("first", None, may_claim=False)


async def test_an_open_gateway_with_keys_knows_them_and_lets_in_the_rest() -> None:
    digest = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"  # of "foo"
    authority = SettingsAuthority((digest,), is_open=True)
    assert await authority.authorise("foo") == Caller(account=digest)
    for key in (None, "", "bar"):
        assert await authority.authorise(key) == Caller(yields=True, may_claim_priority=False)
    assert await SettingsAuthority((), is_open=True).authorise("bar") == Caller()
    with pytest.raises(UnauthorizedError):
        await SettingsAuthority((digest,), is_open=False).authorise(None)


async def test_a_key_among_many_is_found_as_soon_as_among_few() -> None:
    digests = [hashlib.sha256(f"key {number}".encode()).hexdigest() for number in range(100_000)]
    authority = SettingsAuthority(tuple(digests), is_open=False)
    began = time.process_time()
    for number in range(0, 100_000, 200):
        assert (await authority.authorise(f"key {number}")).account == digests[number]
        with pytest.raises(UnauthorizedError):
            await authority.authorise(f"another {number}")
    assert time.process_time() - began < 1.0


def test_a_limit_is_divided_among_gateways() -> None:
    assert [part_of(1024, count) for count in (1, 2, 3)] == [1024, 512, 341]
    assert part_of(2, 5) == 1
    assert part_of(0, 5) == 0


def test_free_seats_are_known_before_the_neuron_reports_them_taken() -> None:
    fleet = Fleet()
    model = ModelReport(model=ModelId("m"), state=ModelState.LOADED, slots_total=4, slots_busy=1)
    status = NeuronReport(neuron_id="n", instance="i", sequence=1, slots_total=4, models=(model,))
    fleet.take(status, 0.0)
    assert fleet.seats("m", 0.0) == Seats(free=3, total=4)
    fleet.took("n", "m")
    assert fleet.seats("m", 0.0) == Seats(free=2, total=4)
    fleet.take(replace(status, sequence=2), 0.1)
    assert fleet.seats("m", 0.1) == Seats(free=3, total=4)
    for heard_at in (1.5, 3.0, 4.5):
        fleet.hear(heard_at)
    assert fleet.seats("m", 4.5) == Seats()
    fleet.take(replace(status, sequence=3, draining=True), 9.0)
    for heard_at in (1.5, 3.0, 4.5):
        fleet.hear(heard_at)
    assert fleet.seats("m", 4.5) == Seats()


@dataclass
class Room:
    """The lines of one model, whose seats are as the test says."""

    bounds: Bounds = field(default_factory=lambda: Bounds(10, 8))
    seats: Seats = field(default_factory=Seats)

    def __post_init__(self) -> None:
        self.lines = Lines(lambda: self.bounds, lambda _: self.seats)

    def full(self, standing: Standing = ADA) -> Place:
        """Return a place in the line: the first try has found no room."""
        place = self.lines.arrive("m", standing)
        if place.is_awake:
            place.rest(0)
        return place


async def test_a_hundred_who_are_cancelled_leave_nothing_behind() -> None:
    room = Room(Bounds(100, 100))
    places = [room.full(Standing(f"key {number % 7}")) for number in range(100)]
    tasks = [asyncio.create_task(place.turn(60)) for place in places]
    await asyncio.sleep(0)
    assert room.lines.depth("m") == 100
    with pytest.raises(QueueFullError):
        room.full()
    room.lines.wake("m", 3)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for place in places:
        place.leave()
        place.leave()
    assert room.lines.depth("m") == 0
    assert not any(room.lines.held("m", f"key {number}") for number in range(7))
    assert room.lines.arrive("m", ADA).is_awake


async def test_a_turn_that_is_not_used_goes_to_the_next() -> None:
    room = Room()
    first, second = room.full(), room.full()
    room.lines.wake("m", 1)
    assert (first.is_awake, second.is_awake) == (True, False)
    first.leave()
    await soon(second.turn(60))


async def test_a_wait_has_an_end() -> None:
    room = Room()
    place = room.full()
    with pytest.raises(NoCapacityError):
        await place.turn(0.01)
    place.leave()
    assert room.lines.depth("m") == 0


async def test_after_the_end_nobody_waits_and_nobody_begins_to() -> None:
    room = Room()
    tries = room.lines.arrive("m", ADA)
    asleep = room.full(BEA)
    waits = asyncio.create_task(asleep.turn(60))
    await asyncio.sleep(0)
    room.lines.close()
    with pytest.raises(ShuttingDownError) as sent_away:
        await waits
    assert sent_away.value.retry_after_s
    with pytest.raises(ShuttingDownError):
        tries.rest(0)
    tries.leave()
    asleep.leave()
    assert room.lines.depth("m") == 0
    assert not room.lines.held("m", "ada")


async def test_somebody_looks_again_although_nothing_was_heard() -> None:
    room = Room()
    first = room.lines.arrive("m", ADA)
    first.rest(0.01)
    await soon(first.turn(60))
    first.leave()
    second = room.lines.arrive("m", ADA)
    third = room.full()
    second.rest(0.01)
    second.leave()
    await soon(third.turn(60))


async def test_whoever_comes_waits_behind_those_who_wait_unless_it_is_next() -> None:
    room = Room()
    room.full()
    assert not room.lines.arrive("m", ADA).is_awake
    urgent = room.lines.arrive("m", URGENT)
    assert urgent.is_awake
    assert not room.lines.arrive("m", BULK).is_awake
    assert room.lines.arrive("m", BEA).is_awake


async def test_the_last_seat_is_kept_from_who_yields_also_while_others_try_for_one() -> None:
    room = Room(seats=Seats(free=3, total=4))
    assert room.lines.arrive("m", NOBODY).is_awake
    assert room.lines.arrive("m", NOBODY).is_awake
    waits = room.lines.arrive("m", NOBODY)
    assert not waits.is_awake
    room.lines.wake("m", 2)
    assert not waits.is_awake
    assert room.lines.arrive("m", ADA).is_awake


async def test_who_was_being_served_is_kept_out_by_no_bound_and_goes_first() -> None:
    room = Room(Bounds(1, 1))
    later = room.full()
    with pytest.raises(RateLimitedError):
        room.full()
    back = room.lines.arrive("m", ADA, returns=True)
    assert back.is_awake
    back.rest(0)
    room.lines.wake("m", 1)
    assert (back.is_awake, later.is_awake) == (True, False)


def test_bad_news_wakes_everybody() -> None:
    room = Room(seats=Seats(free=1, total=4))
    places = [room.full(standing) for standing in (ADA, BEA, NOBODY)]
    room.lines.wake("m", 0)
    assert all(place.is_awake for place in places)
