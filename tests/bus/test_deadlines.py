# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import asyncio
import time

from helexa.bus.deadlines import Deadlines


async def test_what_is_due_is_told_in_its_time_and_nothing_else_is() -> None:
    over: asyncio.Queue[tuple[str, float]] = asyncio.Queue()
    deadlines = Deadlines[str](lambda key: over.put_nowait((key, time.monotonic())))
    began = time.monotonic()
    deadlines.set("late", began + 0.3)
    deadlines.set("never", began + 0.05)
    deadlines.set("early", began + 0.1)
    deadlines.set("past", began - 1)
    deadlines.call_off("never")
    deadlines.call_off("unknown")
    told = [await asyncio.wait_for(over.get(), 5) for _ in range(3)]
    assert [key for key, _ in told] == ["past", "early", "late"]
    assert all(at - began >= due for (_, at), due in zip(told, (0, 0.09, 0.29), strict=True))
    assert over.empty()


async def test_a_deadline_is_moved_by_setting_it_again() -> None:
    over = asyncio.Event()
    deadlines = Deadlines[str](lambda _: over.set())
    began = time.monotonic()
    deadlines.set("x", began + 60)
    deadlines.set("x", began + 0.05)
    await asyncio.wait_for(over.wait(), 5)
    assert time.monotonic() - began >= 0.04
