# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What shall be measured: the steps, and how long each of them is."""

import json
import math
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from helexa.cli.flags import whole_number
from helexa.process.settings import SettingsError

CONCURRENCY = ("1", "4", "16")
MOST_CONNECTIONS = 1000
"""At a rate, unless --concurrency says otherwise."""
SECONDS = 5.0
TIMEOUT_S = 60.0
MAX_TOKENS = 64
PROMPT = "Tell me a story."
MODES = ("streamed", "whole", "both")


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the table: so many clients at once, or so many requests a second."""

    streamed: bool
    concurrency: int
    """Clients that each ask again when they are answered; at a rate, the most connections."""
    rate: float | None = None
    """Requests a second, whether earlier ones are answered or not; `None`: as clients ask."""

    @property
    def name(self) -> str:
        """The step in a few words."""
        mode = "streamed" if self.streamed else "whole"
        load = f"{self.concurrency} at once" if self.rate is None else f"{self.rate:g} a second"
        return f"{mode}, {load}"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a step is. What is under way at its end is awaited."""

    requests: int | None
    seconds: float | None
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Asked:
    """What each request asks for."""

    prompt: str
    prompt_tokens: int | None
    """About how long a made-up prompt is; `None`: `prompt` as it is."""
    prompts: int | None
    """How many made-up prompts take turns; `None`: each is another one."""
    max_tokens: int
    extra: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Plan:
    """All that shall be measured."""

    steps: tuple[Step, ...]
    limits: Limits
    asked: Asked


def read_plan(arguments: Namespace) -> Plan:
    """Return what the arguments ask for.

    Raises:
        SettingsError: one of them is wrong.
    """
    requests = arguments.requests
    seconds = arguments.seconds
    return Plan(
        steps=_steps(arguments.mode, arguments.concurrency, arguments.rate),
        limits=Limits(
            requests=None if requests is None else whole_number(requests, "--requests", at_least=1),
            seconds=_seconds(seconds, requests),
            timeout_s=_positive(arguments.timeout, "--timeout"),
        ),
        asked=_asked(arguments),
    )


def _steps(
    mode: str, concurrency: Sequence[str] | None, rates: Sequence[str] | None
) -> tuple[Step, ...]:
    modes = [name == "streamed" for name in MODES[:2] if mode in (name, "both")]
    counts = [
        whole_number(text, "--concurrency", at_least=1) for text in concurrency or CONCURRENCY
    ]
    if rates is None:
        return tuple(Step(streamed, count) for streamed in modes for count in counts)
    if concurrency is not None and len(counts) > 1:
        raise SettingsError("--concurrency: with --rate it is the most connections, one number")
    most = MOST_CONNECTIONS if concurrency is None else counts[0]
    speeds = [_positive(text, "--rate") for text in rates]
    return tuple(Step(streamed, most, speed) for streamed in modes for speed in speeds)


def _seconds(seconds: str | None, requests: str | None) -> float | None:
    if seconds is not None:
        return _positive(seconds, "--seconds")
    return None if requests is not None else SECONDS


def _asked(arguments: Namespace) -> Asked:
    tokens, prompts = arguments.prompt_tokens, arguments.prompts
    if prompts is not None and tokens is None:
        raise SettingsError("--prompts: needs --prompt-tokens, which makes prompts up")
    return Asked(
        prompt=PROMPT if arguments.prompt is None else arguments.prompt,
        prompt_tokens=(
            None if tokens is None else whole_number(tokens, "--prompt-tokens", at_least=1)
        ),
        prompts=None if prompts is None else whole_number(prompts, "--prompts", at_least=1),
        max_tokens=whole_number(arguments.max_tokens, "--max-tokens", at_least=1),
        extra=_extra(arguments.extra),
    )


def _extra(text: str | None) -> Mapping[str, object]:
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise SettingsError(f"--extra: {text!r} is not an object of JSON")
    return found


def _positive(text: str, flag: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise SettingsError(f"{flag}: {text!r} is not a number above 0")
    return number
