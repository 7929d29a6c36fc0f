# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import random

import pytest

from helexa.protocol.fold import Fold, Hole
from helexa.protocol.frames import (
    CONTROL_AUTHOR,
    Frame,
    FrameKind,
    Opening,
    pack_frame,
    pack_opening,
    unpack_frame,
)

Sent = tuple[str, Frame]


def opening(neuron: str) -> Sent:
    packed = pack_opening(Opening("acct", "m", "chat", "chatcmpl-1", neuron, 1))
    return CONTROL_AUTHOR, unpack_frame(packed)


def assign(attempt: int, neuron: str, after_seq: int) -> Sent:
    packed = pack_frame(attempt, 0, 0, FrameKind.ASSIGN, neuron, after_seq)
    return CONTROL_AUTHOR, unpack_frame(packed)


def data(author: str, attempt: int, seq: int) -> Sent:
    return author, Frame(attempt, seq, seq, FrameKind.DATA, [1, f"{author}{seq}".encode()])


def done(author: str, attempt: int, seq: int) -> Sent:
    return author, Frame(attempt, seq, seq, FrameKind.DONE, [{}, None, {}])


def error(author: str, attempt: int, seq: int) -> Sent:
    return author, Frame(attempt, seq, seq, FrameKind.ERROR, [{"code": "x", "message": ""}])


def read(fold: Fold, sent: list[Sent]) -> list[Frame]:
    return [frame for author, each in sent for frame in fold.accept(author, each)]


UNDISTURBED = [opening("a"), data("a", 1, 0), data("a", 1, 1), data("a", 1, 2), done("a", 1, 3)]
CONTINUED = [
    opening("a"),
    data("a", 1, 0),
    data("a", 1, 1),
    assign(2, "b", 1),
    data("b", 2, 2),
    data("b", 2, 3),
    done("b", 2, 4),
]


def test_frames_come_out_in_order_until_the_terminal_one() -> None:
    fold = Fold()
    assert [frame.seq for frame in read(fold, UNDISTURBED)] == [0, 1, 2, 3]
    assert fold.ended


def test_after_the_end_nothing_comes_out() -> None:
    fold = Fold()
    read(fold, UNDISTURBED)
    assert read(fold, [data("a", 1, 4), done("a", 1, 3)]) == []
    assert fold.ignored == 2


def test_duplicates_are_ignored() -> None:
    fold = Fold()
    assert len(read(fold, [frame for each in UNDISTURBED for frame in (each, each)])) == 4


def test_frames_of_a_neuron_that_was_not_assigned_do_not_count() -> None:
    fold = Fold()
    frames = read(fold, [opening("a"), data("thief", 1, 0), done("thief", 1, 1), data("a", 1, 0)])
    assert [frame.payload[1] for frame in frames] == [b"a0"]
    assert not fold.ended


def test_a_continuation_takes_over_where_it_says() -> None:
    frames = read(Fold(), CONTINUED)
    assert [frame.payload[1] for frame in frames[:-1]] == [b"a0", b"a1", b"b2", b"b3"]


def test_what_the_replaced_neuron_still_sends_is_ignored() -> None:
    late = [*CONTINUED[:4], data("a", 1, 2), error("a", 1, 3), *CONTINUED[4:]]
    fold = Fold()
    frames = read(fold, late)
    assert [frame.payload[1] for frame in frames[:-1]] == [b"a0", b"a1", b"b2", b"b3"]
    assert frames[-1].kind == FrameKind.DONE


def test_a_retry_after_a_failed_attempt_takes_back_its_end() -> None:
    fold = Fold()
    read(fold, [opening("a"), error("a", 1, 0)])
    assert fold.ended
    frames = read(fold, [assign(2, "b", -1), data("b", 2, 0), done("b", 2, 1)])
    assert [frame.attempt for frame in frames] == [2, 2]
    assert fold.ended


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_arrival_does_not_matter(seed: int) -> None:
    control = [sent for sent in CONTINUED if sent[0] == CONTROL_AUTHOR]
    shuffled = [sent for sent in CONTINUED if sent[0] != CONTROL_AUTHOR]
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - a test's order, not a secret
    frames = read(Fold(), [*control, *shuffled])
    assert [frame.seq for frame in frames] == [0, 1, 2, 3, 4]


def test_a_missing_frame_is_a_hole_that_says_what_to_ask_for() -> None:
    fold = Fold()
    read(fold, [opening("a"), data("a", 1, 0), data("a", 1, 3)])
    assert fold.hole() == Hole(1, "a", 1, 3)
    frames = read(fold, [data("a", 1, 1), data("a", 1, 2)])
    assert [frame.seq for frame in frames] == [1, 2, 3]
    assert fold.hole() is None


def test_only_the_first_terminal_frame_of_a_gateway_counts() -> None:
    fold = Fold()
    frames = read(fold, [opening("a"), error(CONTROL_AUTHOR, 1, 0), error(CONTROL_AUTHOR, 1, 0)])
    assert len(frames) == 1


def test_a_gateway_ends_an_answer_at_a_frame_in_whatever_order_that_is_heard() -> None:
    end = Frame(1, 2, 2, FrameKind.DONE, [{}, None, {}])
    sent = [data("a", 1, 0), data("a", 1, 1), error("a", 1, 2), (CONTROL_AUTHOR, end)]
    for first in range(4):
        fold = Fold()
        frames = read(fold, [opening("a"), *sent[first:], *sent[:first]])
        assert [frame.kind for frame in frames if frame.kind == FrameKind.DATA] == [3, 3]
        assert frames[-1] is end
        assert fold.closed
        assert read(fold, [data("a", 1, 3), (CONTROL_AUTHOR, end)]) == []


def test_what_is_missing_before_a_gateways_end_is_a_hole() -> None:
    fold = Fold()
    end = Frame(1, 2, 2, FrameKind.DONE, [{}, None, {}])
    assert len(read(fold, [opening("a"), data("a", 1, 0), (CONTROL_AUTHOR, end)])) == 1
    assert fold.hole() == Hole(1, "a", 1, 2)
    assert read(fold, [data("a", 1, 1)])[-1] is end


def test_an_attached_gateway_becomes_the_owner() -> None:
    fold = Fold()
    attach = Frame(1, 0, 0, FrameKind.ATTACH, ["gate2"])
    read(fold, [opening("a"), (CONTROL_AUTHOR, attach)])
    assert fold.owner == "gate2"


def test_an_attempt_that_another_gateway_has_begun_first_is_withdrawn() -> None:
    fold = Fold()
    first = fold.assign("a", -1)
    fold.assign("b", 0)
    fold.withdraw()
    assert fold.current == first
    assert fold.assign("c", 0).attempt == 2
