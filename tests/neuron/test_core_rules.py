# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The rules that need no bus: kept frames, slots, counts, restarts, assembly."""

import json
import random
from collections import Counter, deque

import pytest

from helexa.neuron import outbox as outbox_module
from helexa.neuron.assembly import Assembly
from helexa.neuron.outbox import Outbox
from helexa.neuron.rate import Rate
from helexa.neuron.restarts import RestartPolicy
from helexa.neuron.retention import ENDED_BYTES, Retention
from helexa.neuron.slots import Slot, SlotPool
from helexa.neuron.splice import Splicer
from helexa.protocol.errors import BusyError, UnavailableError
from helexa.protocol.frames import unpack_frame

from .conftest import THEIR_ID, chunk


class Wire:
    """Keeps what is published, or is away."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.is_away = False
        self.is_behind = False

    async def catch_up(self) -> None:
        raise AssertionError("it is not behind")

    def send_raw(self, subject: str, data: bytes) -> None:
        del subject
        if self.is_away:
            raise UnavailableError
        self.sent.append(data)


def filled(wire: Wire, frames: int, store: Retention | None = None) -> Outbox:
    box = Outbox(wire, "subject", store or Retention(), attempt=1)
    for number in range(frames):
        box.send_events([b"%d" % number])
    return box


async def test_what_could_not_be_published_is_kept_and_sent_again_unchanged() -> None:
    wire = Wire()
    now_s = [0.0]
    box = Outbox(wire, "subject", Retention(), attempt=1, clock=lambda: now_s[0])
    box.send_events([b"old"])
    now_s[0] = 10.0
    wire.is_away = True
    box.send_events([b"new"])
    wire.is_away = False
    assert await box.send_again(5.0) == 1
    assert [unpack_frame(data).seq for data in wire.sent] == [0, 1]
    assert box.slice(0, None, 1000)[0] == wire.sent


def test_a_slice_ends_at_its_bound_but_is_never_empty_handed() -> None:
    box = filled(Wire(), 4)
    size = len(box.kept[0][1])
    frames, is_complete = box.slice(1, None, 2 * size)
    assert [unpack_frame(frame).seq for frame in frames] == [1, 2]
    assert is_complete
    assert len(box.slice(0, None, 1)[0]) == 1


def test_an_answer_keeps_no_more_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "MAX_KEPT_BYTES", 1000)
    box = filled(Wire(), 50)
    assert box.kept_bytes <= 1000
    frames, is_complete = box.slice(0, None, 1000)
    assert not is_complete
    assert unpack_frame(frames[-1]).seq == 49


def test_ended_answers_share_one_bound_and_the_oldest_goes_first() -> None:
    size = filled(Wire(), 10).kept_bytes
    retention = Retention(max_bytes=2 * (size + ENDED_BYTES))
    boxes = []
    for _ in range(3):
        retention.begin()
        boxes.append(filled(Wire(), 10, retention))
        retention.add(boxes[-1])
    assert [bool(box.kept) for box in boxes] == [False, True, True]
    assert [retention.holds(box) for box in boxes] == [False, True, True]
    retention.release(boxes[1])
    retention.release(boxes[1])
    assert retention.kept_bytes == size + ENDED_BYTES
    assert boxes[2].kept_bytes == size


def test_running_answers_share_half_of_the_bound_and_what_has_ended_makes_room() -> None:
    size = filled(Wire(), 10).kept_bytes
    retention = Retention(max_bytes=6 * size)
    ended = []
    for _ in range(3):
        retention.begin()
        ended.append(filled(Wire(), 10, retention))
        retention.add(ended[-1])
    for _ in range(2):
        retention.begin()
    long, other = filled(Wire(), 100, retention), filled(Wire(), 10, retention)
    assert not ended[0].kept
    assert retention.kept_bytes <= retention.max_bytes
    assert long.kept_bytes <= 3 * size
    assert other.kept_bytes == size
    frames, is_complete = long.slice(0, None, 1 << 20)
    assert not is_complete
    assert unpack_frame(frames[-1]).seq == 99


def test_the_host_bound_holds_over_all_models() -> None:
    pool = SlotPool(limit=3)
    pool.offer("a", 2)
    pool.offer("b", 2)
    held = [pool.take("a"), pool.take("a")]
    with pytest.raises(BusyError, match="of a "):
        pool.take("a")
    pool.take("b")
    with pytest.raises(BusyError, match="host"):
        pool.take("b")
    held[0].release()
    held[0].release()
    assert (pool.busy, pool.free) == (2, 1)
    pool.take("b")


def test_two_bounds_at_once_never_hold_a_slot_in_vain() -> None:
    pool, chance = SlotPool(limit=7), random.Random(13)  # noqa: S311 - not a secret
    for model in "abc":
        pool.offer(model, 3)
    held: list[tuple[str, Slot]] = []
    for _ in range(5_000):
        if held and chance.random() < 0.5:
            held.pop(chance.randrange(len(held)))[1].release()
            continue
        model = chance.choice("abc")
        has_room = pool.busy_of(model) < 3 and pool.busy < 7
        try:
            held.append((model, pool.take(model)))
        except BusyError:
            assert not has_room
        else:
            assert has_room
        taken = Counter(model for model, _ in held)
        assert {model: pool.busy_of(model) for model in "abc"} == {m: taken[m] for m in "abc"}
    for _, slot in held:
        slot.release()
    assert (pool.busy, pool.free) == (0, 7)


def test_without_a_bound_the_host_takes_what_its_models_take() -> None:
    pool = SlotPool()
    pool.offer("a", 2)
    pool.offer("b", 3)
    assert pool.total == 5
    pool.offer("b", 0)
    assert pool.total == 2


def test_an_event_that_says_nothing_new_is_passed_on_byte_for_byte() -> None:
    splicer = Splicer(THEIR_ID, "org/tiny v1")
    event = chunk("text")
    assert splicer.take([event]) == [event]


def test_counts_beside_content_are_read_and_the_event_stays() -> None:
    splicer = Splicer("x", "m")
    body = json.loads(chunk("text")) | {"usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    (kept,) = splicer.take([json.dumps(body).encode()])
    assert json.loads(kept)["id"] == "x"
    assert splicer.usage is not None
    assert splicer.usage.prompt_tokens == 3
    assert splicer.usage_event() is None


@pytest.mark.parametrize("event", [b"[]", b"not json", b'{"id": 3}'])
def test_what_is_no_usual_event_is_passed_on(event: bytes) -> None:
    assert Splicer("x", "m").take([event]) == [event]


def test_restarts_grow_apart_and_end() -> None:
    policy = RestartPolicy(initial_interval_s=1, maximum_interval_s=3, maximum_attempts=4)
    assert [policy.pause_s(deaths, 1.0) for deaths in range(1, 6)] == [1, 2, 3, 3, None]
    assert policy.pause_s(1, 0.0) == 0.5


def test_a_rate_forgets_what_is_long_ago() -> None:
    rate = Rate(window_s=5)
    rate.add(10, 100.2)
    rate.add(10, 100.7)
    assert rate.per_second(101) == 4
    assert rate.per_second(120) == 0


def test_pieces_of_a_stream_make_one_answer() -> None:
    assembly = Assembly()
    calls = [
        {
            "index": 0,
            "id": "call_1",
            "type": "function",
            "function": {"name": "f", "arguments": "{"},
        },
        {"index": 0, "function": {"arguments": '"a":1}'}},
    ]
    deltas: list[dict[str, object]] = [
        {"role": "assistant", "content": None},
        {"reasoning_content": "Hm"},
        {"reasoning_content": "m."},
        {"content": "Yes"},
        {"tool_calls": calls[:1]},
        {"tool_calls": calls[1:]},
    ]
    for delta in deltas:
        event = {
            "id": "x",
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": delta}],
        }
        assembly.add(json.dumps(event).encode())
    assembly.add(b'{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}')
    result = json.loads(json.dumps(assembly.result()))
    (choice,) = result["choices"]
    assert result["object"] == "chat.completion"
    assert choice["finish_reason"] == "tool_calls"
    message = choice["message"]
    assert (message["role"], message["content"]) == ("assistant", "Yes")
    assert message["reasoning_content"] == "Hmm."
    (call,) = message["tool_calls"]
    assert call["function"] == {"name": "f", "arguments": '{"a":1}'}


def test_others_hear_at_once_of_many_changes_of_few_free_slots_and_of_the_last_one() -> None:
    slots = SlotPool()
    slots.offer("m", 80)
    told: list[int] = []
    slots.on_news(lambda: told.append(slots.busy))
    taken = [slots.take("m") for _ in range(80)]
    assert told[:6] == [10, 20, 30, 40, 50, 60]
    assert told[-4:] == [77, 78, 79, 80]
    taken[0].release()
    assert told[-1] == 79


def test_few_free_slots_are_news_of_whatever_model() -> None:
    slots = SlotPool(limit=80)
    slots.offer("m", 80)
    slots.offer("other", 80)
    held = [slots.take("m") for _ in range(79)]
    told: list[int] = []
    slots.on_news(lambda: told.append(slots.free))
    held.append(slots.take("other"))
    held.pop().release()
    held.pop().release()
    assert told == [0, 1, 2]


def test_slots_that_change_hands_are_news_before_the_host_looks_full_to_others() -> None:
    slots = SlotPool()
    slots.offer("m", 80)
    seen = 0

    def hear() -> None:
        nonlocal seen
        seen = slots.busy

    slots.on_news(hear)
    taken: deque[Slot] = deque()
    for turn in range(2000):
        if turn % 7 < 4 and slots.free:
            # Whoever sends a request counts it until the next report.
            seen += 1
            assert seen <= 80
            taken.append(slots.take("m"))
        elif taken:
            taken.popleft().release()
