# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""How often streams say something."""

from dataclasses import dataclass

from helexa.neuron.departures import Departures


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a stream says something."""

    frame_interval_s: float = 0.05
    """Least time between two frames of events; what comes faster shares a frame."""
    departure_interval_s: float = 0.01
    """Frames of different streams wait so long for one another, where there are many."""
    beat_interval_s: float = 1.0
    """Longest silence while the backend says nothing."""
    owner_silence_s: float = 30.0
    """An owner that is silent for longer is gone, and its work ends with it."""


@dataclass(frozen=True, slots=True)
class Track:
    """What all streams of a site share."""

    pace: Pace
    departures: Departures
