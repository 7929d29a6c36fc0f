# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Which of an answer's kept frames count, and where they begin."""

from helexa.protocol.fold import Fold
from helexa.protocol.frames import Frame

Sent = tuple[str, Frame]


def counting(fold: Fold, sent: list[Sent]) -> list[Sent]:
    """Return the frames that belong to the attempt whose part of the numbers they are in."""
    return [(author, frame) for author, frame in sent if _counts(fold, author, frame)]


def first_kept(sent: list[Sent]) -> Frame | None:
    """Return the frame with the lowest number."""
    return min((frame for _, frame in sent), key=lambda frame: frame.seq, default=None)


def _counts(fold: Fold, author: str, frame: Frame) -> bool:
    for assigned in reversed(fold.assignments):
        if frame.seq > assigned.after_seq:
            return (assigned.attempt, assigned.author) == (frame.attempt, author)
    return False
