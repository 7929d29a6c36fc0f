# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a child writes comes through in whole lines, however it was cut on its way."""

import pytest

from helexa.process import childlines
from helexa.process.childlines import ChildLines


class Taken(ChildLines):
    """What has been passed on."""

    def __init__(self) -> None:
        self.blocks: list[bytes] = []
        super().__init__("cook", lambda _, lines: self.blocks.append(lines))


async def test_lines_are_passed_on_whole_in_blocks() -> None:
    taken = Taken()

    for part in (b"one\ntw", b"o", b"\nthree\nfour\nfi", b"ve"):
        taken.data_received(part)
    taken.connection_lost(None)

    assert taken.blocks == [b"one\n", b"two\nthree\nfour\n", b"five"]
    assert taken.ended.done()
    assert taken.tail == ["one", "two", "three", "four", "five"]


async def test_a_line_that_is_too_long_is_dropped_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(childlines, "LONGEST_LINE_BYTES", 10)
    taken = Taken()

    for part in (b"before\nlong long", b" and long", b" line\nafter\nbe", b"gun\n"):
        taken.data_received(part)

    assert taken.blocks == [b"before\n", b"after\n", b"begun\n"]


async def test_the_last_lines_are_kept() -> None:
    taken = Taken()

    taken.data_received(b"".join(b"%d\n" % k for k in range(100_000)))

    assert taken.tail == [str(k) for k in range(99_988, 100_000)]
