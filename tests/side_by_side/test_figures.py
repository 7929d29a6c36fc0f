# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What the comparison with other servers makes of its runs."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from tests.benchmarks import figures, phases
from tests.benchmarks.accounting import since
from tests.benchmarks.figures import MEASURES, Figure, Measure, Results, Run, figure
from tests.benchmarks.goals import GOALS, LITELLM, OURS, SGLANG
from tests.benchmarks.page import BEGIN, END, goal_table, main_table, put_into, report, troubles
from tests.benchmarks.side_by_side import save, saved

NOTHING = {
    f"{name}_{part}_ms": -1.0
    for name in ("latency", "first_token", "between_tokens")
    for part in ("p50", "p99", "max")
}
COUNTED = {"answers": 0.0, "tokens": 0.0, "failed": 0.0, "wrong": 0.0, "duration_s": 2.0}


def run_of(
    target: str,
    phase: phases.Phase,
    repetition: int = 0,
    cpu_s: dict[str, float] | None = None,
    memory: dict[str, list[float]] | None = None,
    **load: float,
) -> Run:
    return Run(target, phase.name, repetition, NOTHING | COUNTED | load, cpu_s or {}, memory or {})


def one_at_a_time(target: str, *p50_ms: float) -> list[Run]:
    return [
        run_of(target, phases.WHOLE_1, number, latency_p50_ms=each)
        for number, each in enumerate(p50_ms)
    ]


def test_a_figure_is_the_median_with_its_range() -> None:
    assert figure([3.0, 1.0, 2.0, 9.0, 2.5]) == Figure(2.5, 1.0, 9.0)
    assert figure([]) is None


def test_a_figure_shows_its_range_only_if_there_is_one() -> None:
    assert Figure(1234.56, 1000, 2000).shown(1) == "1,234.6 (1,000.0 to 2,000.0)"
    assert Figure(2, 2, 2).shown(0) == "2"


def test_what_is_added_is_the_difference_to_direct_in_the_same_repetition() -> None:
    results = Results(
        [*one_at_a_time("direct", 0.1, 0.5, 0.1), *one_at_a_time(OURS, 0.4, 0.9, 0.6)]
    )
    added = results.figure(figures.ADDED_LATENCY, OURS)
    assert added is not None
    assert (round(added.median, 3), round(added.least, 3), round(added.most, 3)) == (0.4, 0.3, 0.5)
    assert results.figure(figures.ADDED_LATENCY, "direct") is None


def test_nothing_is_added_where_direct_was_not_asked() -> None:
    results = Results(one_at_a_time(OURS, 0.4))
    assert results.figure(figures.ADDED_LATENCY, OURS) is None


def test_a_time_that_was_not_measured_is_no_figure() -> None:
    results = Results([run_of(OURS, phases.WHOLE_1)])
    p50: Measure = MEASURES[0]
    assert results.figure(p50, OURS) is None


def test_processor_time_is_that_of_all_processes_for_each_answer() -> None:
    run = run_of(OURS, phases.WHOLE_16, cpu_s={"gateway": 0.3, "neuron": 0.1}, answers=2000)
    results = Results([run])
    assert figures.cpu_us_per("answers")(run) == pytest.approx(200)
    split = results.cpu_split(figures.RATE_16, OURS, "answers")
    assert {name: round(each.median) for name, each in split.items()} == {
        "gateway": 150,
        "neuron": 50,
    }
    assert list(split) == ["gateway", "neuron"]


def test_a_process_that_ended_counts_for_nothing() -> None:
    assert since({"a": 2.0, "gone": 1.0}, {"a": 2.5, "new": 0.5}) == {"a": 0.5, "new": 0.5}


def test_a_ratio_is_taken_in_each_repetition() -> None:
    rates = {OURS: (400, 900), LITELLM: (20, 30)}
    results = Results(
        run_of(target, phases.WHOLE_16, number, answers=answers)
        for target, each in rates.items()
        for number, answers in enumerate(each)
    )
    assert results.ratio(figures.RATE_16, OURS, LITELLM) == Figure(25, 20, 30)
    assert results.ratio(figures.RATE_16, OURS, SGLANG) is None


def test_a_goal_is_reached_by_the_median() -> None:
    slow, fast = Figure(14.9, 10, 30), Figure(15, 1, 15)
    rate, latency = GOALS[0], next(goal for goal in GOALS if goal.most == 1.0)
    assert (rate.is_met(slow), rate.is_met(fast)) == (False, True)
    assert (latency.is_met(Figure(1.0, 1, 9)), latency.is_met(Figure(1.1, 0, 2))) == (True, False)


def test_the_servers_memory_is_not_that_of_a_python_process() -> None:
    memory = {"nats-server": [900.0], "neuron": [80.0, 70.0], "gateway": [90.0]}
    results = Results([run_of(OURS, phases.PACED_800, memory=memory)])
    largest = next(goal for goal in GOALS if goal.unit == "MiB").read(results)
    assert largest == Figure(90, 90, 90)


def test_the_table_has_a_column_for_each_target_and_marks_what_failed() -> None:
    results = Results(
        [
            *one_at_a_time("direct", 0.1),
            run_of(OURS, phases.WHOLE_1, latency_p50_ms=0.3, answers=7, failed=2),
        ]
    )
    lines = main_table(results).splitlines()
    assert lines[0] == "|  | direct | helexa |"
    assert "| one at a time: p50, ms | 0.100 | 0.300* |" in lines
    assert troubles(results) == [
        "* helexa, whole-1: 7 answers right, 2 failed, 0 wrong, over all repetitions."
    ]


def test_what_was_not_measured_is_not_reached_either() -> None:
    rows = goal_table(Results([])).splitlines()[2:]
    assert len(rows) == len(GOALS)
    assert all(row.endswith("| - | - |") for row in rows)


def test_a_page_gets_the_tables_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Speed\n\n{BEGIN}\nold \\1\n{END}\n\nThe end.\n")
    text = report({"machine": r"a \d"}, Results(one_at_a_time(OURS, 1.0)))
    for _ in range(2):
        put_into(page, text)
    written = page.read_text()
    assert written == f"# Speed\n\n{BEGIN}\n\n{text}\n\n{END}\n\nThe end.\n"


def test_runs_are_read_as_they_were_written(tmp_path: Path) -> None:
    runs = [run_of(OURS, phases.WHOLE_1, 1, {"gateway": 0.5}, {"gateway": [80.0]}, answers=3)]
    save(tmp_path / "a" / "runs.json", {"date": "today"}, runs)
    assert saved(tmp_path / "a" / "runs.json") == ({"date": "today"}, runs)
    assert json.loads((tmp_path / "a" / "runs.json").read_text())["runs"] == [asdict(runs[0])]
