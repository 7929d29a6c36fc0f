# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""How every reader (live, resuming, billing) makes one answer out of frames.

Frames of attempt k count only from the neuron that it was assigned to, and only up to the
``after_seq`` of attempt k + 1. The first terminal frame of the last attempt ends the answer, unless
a gateway ends it at an earlier one. All else is ignored and counted. Frames arrive in any order and
more than once; what comes out is in order, each once, without a hole.
"""

from dataclasses import dataclass, field

from helexa.protocol.frames import CONTROL_AUTHOR, TERMINAL, Frame, FrameKind, read_opening


@dataclass(frozen=True, slots=True)
class Assignment:
    """One attempt: who makes it, and after which frame it begins."""

    attempt: int
    author: str
    after_seq: int


@dataclass(frozen=True, slots=True)
class Hole:
    """Frames that are known to exist and have not arrived."""

    attempt: int
    author: str
    from_seq: int
    to_seq: int


@dataclass(slots=True)
class Fold:
    """The state of one answer at one reader."""

    next_seq: int = 0
    """The frame that comes next."""
    ended: bool = False
    closed: bool = False
    """Whether a gateway has ended it, so that no other attempt follows."""
    ignored: int = 0
    owner: str | None = None
    """The gateway that attached last; `None`: the home."""
    assignments: list[Assignment] = field(default_factory=list)
    current: Assignment | None = None
    """The last attempt, which is the running one."""
    _early: dict[tuple[int, str, int], Frame] = field(default_factory=dict)
    _end: Frame | None = None
    """A gateway's terminal frame whose turn has not come."""

    def assign(self, author: str, after_seq: int) -> Assignment:
        """Begin the next attempt, by `author`, after the frame `after_seq` (-1: from the start).

        Frames after `after_seq` that were accepted before, such as the terminal frame of a failed
        attempt, no longer count.
        """
        made = Assignment(len(self.assignments) + 1, author, after_seq)
        self.assignments.append(made)
        self.current = made
        self.next_seq = min(self.next_seq, after_seq + 1)
        self.ended = False
        return made

    def withdraw(self) -> None:
        """Forget the last attempt: another gateway was first to begin one."""
        self.assignments.pop()
        self.current = self.assignments[-1] if self.assignments else None

    def accept(self, author: str, frame: Frame) -> list[Frame]:
        """Take in one frame and return those that now come next, in order (often just this one)."""
        if author == CONTROL_AUTHOR:
            return self._accept_control(frame)
        if self.ended:
            self.ignored += 1
            return []
        assigned = self.current
        if (
            assigned is not None
            and frame.seq == self.next_seq
            and frame.attempt == assigned.attempt
            and author == assigned.author
            and not self._early
            and self._end is None
        ):
            self.next_seq += 1
            self.ended = frame.kind in TERMINAL
            return [frame]
        return self._accept_out_of_order(author, frame)

    def hole(self) -> Hole | None:
        """Return the missing frames before the earliest frame that waits for them, if any."""
        if not self._early and self._end is None:
            return None
        waiting = [
            seq for (attempt, author, seq) in self._early if self._counts(attempt, author, seq)
        ]
        if self._end is not None and self._end.seq > self.next_seq:
            waiting.append(self._end.seq)
        owner = self._attempt_of(self.next_seq)
        if not waiting or owner is None:
            return None
        return Hole(owner.attempt, owner.author, self.next_seq, min(waiting))

    def _accept_control(self, frame: Frame) -> list[Frame]:
        if frame.kind == FrameKind.ATTACH:
            self.owner = str(frame.payload[0])
        elif frame.is_terminal and not self.closed:
            self.closed = True
            self._end = frame
        elif frame.attempt == len(self.assignments) + 1:
            if frame.kind == FrameKind.OPEN:
                self.assign(read_opening(frame).neuron, -1)
            elif frame.kind == FrameKind.ASSIGN:
                neuron, after_seq = frame.payload[:2]
                if isinstance(after_seq, int):
                    self.assign(str(neuron), after_seq)
        return self._release()

    def _accept_out_of_order(self, author: str, frame: Frame) -> list[Frame]:
        if frame.seq < self.next_seq:
            self.ignored += 1
            return []
        self._early[frame.attempt, author, frame.seq] = frame
        return self._release()

    def _release(self) -> list[Frame]:
        released: list[Frame] = []
        while self._early and not self.ended and not self._is_at_end:
            owner = self._attempt_of(self.next_seq)
            if owner is None:
                break
            frame = self._early.pop((owner.attempt, owner.author, self.next_seq), None)
            if frame is None:
                break
            self.next_seq += 1
            self.ended = frame.is_terminal and owner is self.current
            released.append(frame)
        if self._end is not None and self._is_at_end:
            # Also where a neuron's own end was released: the gateway's is the answer's.
            released.append(self._end)
            self._end, self.ended = None, True
        return released

    @property
    def _is_at_end(self) -> bool:
        return self._end is not None and self.next_seq >= self._end.seq

    def _attempt_of(self, seq: int) -> Assignment | None:
        """Return the attempt whose frame `seq` counts: the last one that begins before it."""
        for assigned in reversed(self.assignments):
            if seq > assigned.after_seq:
                return assigned
        return None

    def _counts(self, attempt: int, author: str, seq: int) -> bool:
        owner = self._attempt_of(seq)
        return owner is not None and (owner.attempt, owner.author) == (attempt, author)
