# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What every target is asked to do, one after the other."""

from dataclasses import dataclass

TOKENS = 64
"""Tokens of every answer; as text about 450 bytes."""
PACE_MS = 50
"""Between two tokens of a paced stream: 20 tokens a second."""
PACED_ANSWER_S = TOKENS * PACE_MS / 1000


@dataclass(frozen=True, slots=True)
class Phase:
    """So many chats at once, each followed by the next."""

    name: str
    concurrency: int
    is_streamed: bool = False
    pace_ms: int = 0

    @property
    def ramp_s(self) -> float:
        """Over how long the chats begin: paced ones so that at any time as many begin as end."""
        return PACED_ANSWER_S if self.pace_ms else 0.0


IDLE = Phase("idle", 0)
WHOLE_1 = Phase("whole-1", 1)
WHOLE_16 = Phase("whole-16", 16)
WHOLE_64 = Phase("whole-64", 64)
STREAM_1 = Phase("stream-1", 1, is_streamed=True)
STREAM_64 = Phase("stream-64", 64, is_streamed=True)
PACED_100 = Phase("paced-100", 100, is_streamed=True, pace_ms=PACE_MS)
PACED_800 = Phase("paced-800", 800, is_streamed=True, pace_ms=PACE_MS)
PACED_1600 = Phase("paced-1600", 1600, is_streamed=True, pace_ms=PACE_MS)
PHASES = (
    IDLE,
    WHOLE_1,
    WHOLE_16,
    WHOLE_64,
    STREAM_1,
    STREAM_64,
    PACED_100,
    PACED_800,
    PACED_1600,
)
USUAL = PHASES[:-1]
