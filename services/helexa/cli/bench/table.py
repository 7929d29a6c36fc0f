# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The figures as tables for people, and as JSON for programs. Pure."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

from helexa.cli.bench.level import Figures, Spread
from helexa.process.version import software_version

_GAP = "   "


@dataclass(frozen=True, slots=True)
class Run:
    """All that was measured, and how."""

    url: str
    model: str
    max_tokens: int
    trial_s: float
    """How long the one request took that came before all others."""
    was_interrupted: bool
    figures: tuple[Figures, ...]


def as_json(run: Run) -> str:
    """Return everything; times are in seconds."""
    return json.dumps({"helexa": software_version(), **asdict(run)}, indent=2) + "\n"


def as_text(run: Run) -> str:
    """Return a table for each kind of answer, and what one must know to read it."""
    lines = [f"{run.model} at {run.url}, {_lengths(run)}"]
    for streamed in (True, False):
        rows = [each for each in run.figures if each.streamed == streamed]
        if rows:
            lines += ["", "streamed" if streamed else "whole answers", *_table(rows)]
    notes = list(_notes(run))
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"


def milliseconds(duration_s: float | None) -> str:
    """Return a duration in milliseconds with three digits that count."""
    if duration_s is None:
        return "-"
    found = duration_s * 1000
    if found >= 99.95:
        return f"{found:.0f}"
    return f"{found:.1f}" if found >= 9.995 else f"{found:.2f}"


def load_of(figures: Figures) -> str:
    """Return what a row is called."""
    if figures.rate is None:
        return f"{figures.concurrency} at once"
    return f"{figures.rate:g} a second"


def _lengths(run: Run) -> str:
    told = {each.prompt_tokens for each in run.figures if each.prompt_tokens is not None}
    prompt = f"prompts of {min(told)} tokens, " if told else ""
    return f"{prompt}answers of at most {run.max_tokens}"


def _table(rows: Sequence[Figures]) -> Iterator[str]:
    groups = [("WHOLE ANSWER ms", [each.latency for each in rows])]
    if rows[0].streamed:
        groups = [
            ("FIRST TOKEN ms", [each.time_to_first_token for each in rows]),
            ("BETWEEN TOKENS ms", [each.inter_token for each in rows]),
            *groups,
        ]
    blocks = [_block("", ("LOAD", "ANSWERED", "REFUSED", "FAILED"), map(_counts, rows))]
    blocks += [_block("PER SECOND", ("REQ", "TOK"), map(_rates, rows))]
    blocks += [
        _block(name, ("p50", "p95", "p99"), map(_percentiles, spreads)) for name, spreads in groups
    ]
    return (_GAP.join(parts).rstrip() for parts in zip(*blocks, strict=True))


def _block(name: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    # The name stands above its columns, and the last of them is as wide as it needs.
    widths[0] += max(0, len(name) - sum(widths) - 2 * (len(widths) - 1))
    text = [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    ]
    return [name.rjust(len(text[0])), *text]


def _counts(row: Figures) -> tuple[str, ...]:
    return load_of(row), str(row.answered), str(row.refused), str(row.failed)


def _rates(row: Figures) -> tuple[str, ...]:
    return _rate(row.requests_per_s), _rate(row.tokens_per_s)


def _rate(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.1f}"


def _percentiles(spread: Spread) -> tuple[str, ...]:
    return tuple(map(milliseconds, (spread.p50_s, spread.p95_s, spread.p99_s)))


def _notes(run: Run) -> Iterator[str]:
    for row in run.figures:
        mode = "streamed" if row.streamed else "whole"
        for reason in row.reasons:
            kind = "refused" if reason.is_refusal else "failed"
            yield f"{mode}, {load_of(row)}: {reason.count} {kind}, {reason.code}: {reason.message}"
        if row.is_generator_near_its_limit:
            yield f"{mode}, {load_of(row)}: {_limit(row)}"
    if any(row.are_tokens_events and row.answered for row in run.figures):
        yield "Some answers did not tell their tokens: events were counted in their place."
    if run.was_interrupted:
        left = sum(row.abandoned for row in run.figures)
        yield f"Interrupted: {left} under way, which are not counted."


def _limit(row: Figures) -> str:
    waited = f" and waited for one {row.generator_waited_share:.0%} of the time"
    return (
        f"the generator was at {row.generator_share:.0%} of a core"
        f"{waited if row.generator_waited_share >= 0.01 else ''}: the figures are a lower bound"
    )
