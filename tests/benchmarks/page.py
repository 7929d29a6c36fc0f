# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The results as Markdown."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.benchmarks import figures, phases
from tests.benchmarks.figures import MEASURES, Measure, Results
from tests.benchmarks.goals import GOALS, OURS

NOTHING = "-"
MARK = "*"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main_table(results: Results) -> str:
    """Return every measure of every target; a star where answers failed or were wrong."""
    targets = results.targets
    rows = [
        [measure.label, *(_cell(results, measure, target) for target in targets)]
        for measure in MEASURES
        if any(results.of(target, measure.phase) for target in targets)
    ]
    return table(["", *targets], rows)


def _cell(results: Results, measure: Measure, target: str) -> str:
    found = results.figure(measure, target)
    star = MARK if any(run.trouble for run in results.of(target, measure.phase)) else ""
    return (found.shown(measure.decimals) if found else NOTHING) + star


def troubles(results: Results) -> list[str]:
    """Return a line for each phase in which a target's answers failed or were wrong."""
    lines: list[str] = []
    for target in results.targets:
        for phase in phases.PHASES:
            runs = results.of(target, phase)
            failed, wrong = (sum(run.load[name] for run in runs) for name in ("failed", "wrong"))
            if failed or wrong:
                right = sum(run.load["answers"] for run in runs)
                lines.append(
                    f"{MARK} {target}, {phase.name}: {right:,.0f} answers right, "
                    f"{failed:,.0f} failed, {wrong:,.0f} wrong, over all repetitions."
                )
    return lines


def goal_table(results: Results) -> str:
    """Return what was to be reached, and what was."""
    rows: list[list[str]] = []
    for goal in GOALS:
        found = goal.read(results)
        met = NOTHING if found is None else "yes" if goal.is_met(found) else "no"
        rows.append([goal.label, goal.bound, found.shown(2) if found else NOTHING, met])
    return table(["goal", "asked", "measured", "reached"], rows)


def split_table(results: Results, target: str = OURS) -> str:
    """Return which of the target's processes the processor time goes to."""
    request = results.cpu_split(figures.RATE_16, target, "answers")
    token = results.cpu_split(figures.CPU_TOKEN, target, "tokens")
    rows = [
        [name, *(split[name].shown(1) if name in split else NOTHING for split in (request, token))]
        for name in {**request, **token}
    ]
    return table(
        ["process", "CPU, us/request, 16 at once", "CPU, us/token, 100 paced streams"], rows
    )


def memory_table(results: Results, phase: phases.Phase = phases.PACED_800) -> str:
    """Return the resident memory of every target's processes under the load of `phase`."""
    rows = [
        [target, name, str(count), f"{most:.0f}"]
        for target in results.targets
        for name, (count, most) in results.memory(target, phase).items()
    ]
    return table(["target", "process", "how many", "the largest, MiB"], rows)


def report(conditions: Mapping[str, str], results: Results) -> str:
    """Return all of it."""
    said = table(["condition", ""], [[name, value] for name, value in conditions.items()])
    parts = [
        said,
        main_table(results),
        "\n".join(f"{line}  " for line in troubles(results)),
        "## Against the goals",
        goal_table(results),
        "## Where the processor time goes",
        split_table(results),
        "## Memory",
        memory_table(results),
    ]
    return "\n\n".join(part for part in parts if part)


def put_into(page: Path, text: str) -> None:
    """Replace what stands between the page's two marks."""
    before = page.read_text(encoding="utf-8")
    between = re.compile(f"(?<={re.escape(BEGIN)}\n).*(?={re.escape(END)})", re.DOTALL)
    page.write_text(between.sub(lambda _: f"\n{text}\n\n", before), encoding="utf-8")
