# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import pytest

from helexa.neuron.owners import ORPHAN_S, Owners
from helexa.neuron.room import SETTLE_S, BulkRoom, Seats, may_take
from helexa.neuron.slots import SlotPool


class Time:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("host", "model", "bulk", "most", "may"),
    [
        (Seats(4, 0), Seats(4, 0), 0, None, True),
        (Seats(4, 2), Seats(4, 2), 2, None, True),
        (Seats(4, 3), Seats(4, 3), 3, None, False),
        (Seats(4, 3), Seats(4, 3), 0, None, False),
        (Seats(1, 0), Seats(1, 0), 0, None, True),
        (Seats(1, 1), Seats(1, 1), 0, None, False),
        (Seats(2, 0), Seats(1, 0), 0, None, True),
        (Seats(2, 1), Seats(1, 0), 1, None, False),
        (Seats(8, 0), Seats(2, 1), 0, None, False),
        (Seats(0, 0), Seats(0, 0), 0, None, False),
        (Seats(4, 1), Seats(4, 1), 1, 1, False),
        (Seats(4, 0), Seats(4, 0), 0, 0, False),
    ],
)
def test_bulk_work_leaves_a_seat_wherever_there_are_two(
    host: Seats,
    model: Seats,
    bulk: int,
    most: int | None,
    *,
    may: bool,
) -> None:
    assert may_take(host, model, bulk, most) is may


def test_a_seat_that_comes_free_is_for_those_who_wait_at_first() -> None:
    slots, clock = SlotPool(), Time()
    slots.offer("m", 1)
    room = BulkRoom(slots, clock=clock)
    clock.now_s += 1
    assert room.wait_s("m") == SETTLE_S
    clock.now_s += SETTLE_S
    assert room.wait_s("m") == 0
    slot = slots.take("m")
    assert room.wait_s("m") is None
    slot.release()
    assert room.wait_s("m") == SETTLE_S
    clock.now_s += SETTLE_S / 2
    assert room.wait_s("m") == SETTLE_S / 2


def test_work_that_never_filled_the_host_is_followed_at_once() -> None:
    slots, clock = SlotPool(), Time()
    slots.offer("m", 3)
    room = BulkRoom(slots, clock=clock)
    room.wait_s("m")
    clock.now_s += SETTLE_S
    slot = slots.take("m")
    assert room.wait_s("m") == 0
    slot.release()
    assert room.wait_s("m") == 0


def test_bulk_work_has_at_most_its_part() -> None:
    slots, clock = SlotPool(), Time()
    slots.offer("m", 8)
    room = BulkRoom(slots, 1, clock)
    room.wait_s("m")
    clock.now_s += SETTLE_S
    room.begin()
    assert room.wait_s("m") is None
    room.end()
    assert room.wait_s("m") == 0


def test_an_owner_is_gone_when_it_says_so_or_after_a_long_silence() -> None:
    owners = Owners(100.0)
    owners.hear("a", 120.0, leaves=False)
    assert not owners.is_gone("a", 120.0 + ORPHAN_S)
    assert owners.is_gone("a", 121.0 + ORPHAN_S)
    assert not owners.is_gone("never heard", 100.0 + ORPHAN_S)
    assert owners.is_gone("never heard", 101.0 + ORPHAN_S)
    owners.hear("b", 120.0, leaves=True)
    assert owners.is_gone("b", 120.0)


def test_silence_counts_only_while_one_could_hear() -> None:
    owners = Owners(0.0)
    owners.hear("a", 1.0, leaves=False)
    owners.listen_anew(1000.0)
    assert not owners.is_gone("a", 1000.0 + ORPHAN_S)
