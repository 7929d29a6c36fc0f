# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Figures of answers: percentiles, rates, tables."""

import json
import math
from itertools import islice, pairwise
from random import Random

import pytest

from helexa.cli.bench import trouble
from helexa.cli.bench.answer import Answer
from helexa.cli.bench.arrivals import arrivals
from helexa.cli.bench.effort import Effort
from helexa.cli.bench.histogram import Histogram
from helexa.cli.bench.level import Figures, Level
from helexa.cli.bench.plan import Step
from helexa.cli.bench.table import Run, as_json, as_text, milliseconds
from helexa.cli.bench.trouble import Trouble

IDLE = Effort(0.1, 0.0)


def chance() -> Random:
    return Random(1)  # noqa: S311 - the same numbers in each run


def histogram(*durations: float) -> Histogram:
    made = Histogram()
    for each in durations:
        made.add(each)
    return made


@pytest.mark.parametrize(("share", "rank"), [(0.5, 500), (0.95, 950), (0.99, 990), (1.0, 1000)])
def test_a_percentile_is_right_to_half_a_percent(share: float, rank: int) -> None:
    durations = [1e-5 * 1.01**number for number in range(1000)]
    chance().shuffle(durations)

    found = histogram(*durations).percentile_s(share)

    assert found == pytest.approx(sorted(durations)[rank - 1], rel=0.005)


def test_of_one_duration_every_percentile_is_that() -> None:
    one = histogram(0.1234)

    assert one.percentile_s(0.01) == one.percentile_s(0.99) == one.mean_s == one.most_s == 0.1234


def test_of_nothing_there_is_no_percentile() -> None:
    none = histogram()

    assert none.percentile_s(0.5) is none.mean_s is none.most_s is None


def test_no_time_at_all_is_a_duration() -> None:
    found = Histogram()
    found.add(0.0, 98)
    found.add(1.0, 2)

    assert found.count == 100
    assert found.percentile_s(0.98) == 0.0
    assert found.percentile_s(0.99) == 1.0
    assert found.mean_s == pytest.approx(0.02)


def test_memory_does_not_grow_with_the_number_of_durations() -> None:
    found = Histogram()
    drawn = chance()
    for _ in range(20_000):
        found.add(drawn.lognormvariate(-4, 2))

    assert found.count == 20_000
    assert len(vars(found)["_buckets"]) < 200 * math.log(1e10)


def test_arrivals_come_at_their_rate_and_independently() -> None:
    due = list(islice(arrivals(50.0, chance()), 5000))
    gaps = [later - earlier for earlier, later in pairwise(due)]
    mean = sum(gaps) / len(gaps)

    assert due == sorted(due)
    assert mean == pytest.approx(1 / 50, rel=0.05)
    # Of a Poisson process the spread is as large as the mean.
    assert math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) == pytest.approx(
        mean, rel=0.1
    )


def whole(tokens: int, took_s: float) -> Answer:
    answer = Answer(10.0, streamed=False, gaps=Histogram())
    answer.head(200)
    counted = {"prompt_tokens": 7, "completion_tokens": tokens}
    answer.feed(json.dumps({"choices": [], "usage": counted}).encode(), 0.0)
    answer.end(10.0 + took_s)
    return answer


def refused(reason: Trouble) -> Answer:
    answer = Answer(10.0, streamed=False, gaps=Histogram())
    answer.fail(reason, 99.0)
    return answer


def level(*answers: Answer, streamed: bool = False, under_way: int = 0) -> Level:
    made = Level(Step(streamed, 4))
    for answer in answers:
        made.started += 1
        made.take(answer)
    made.started += under_way
    return made


def test_rates_are_of_what_was_answered() -> None:
    full = Trouble("429 full", "no room", is_refusal=True)
    counted = level(whole(10, 1.0), whole(30, 3.0), refused(full), refused(trouble.CLOSED))

    found = counted.figures(4.0, IDLE)

    assert (found.requests, found.answered, found.refused, found.failed) == (4, 2, 1, 1)
    assert found.requests_per_s == 0.5
    assert found.tokens_per_s == 10
    assert found.latency.count == 2
    assert found.latency.max_s == 3.0
    assert found.prompt_tokens == 7
    assert [(each.code, each.count) for each in found.reasons] == [
        ("429 full", 1),
        ("connection_closed", 1),
    ]


def test_a_stream_tells_the_first_token_and_the_time_of_each_further_one() -> None:
    counted = Level(Step(streamed=True, concurrency=1))
    answer = Answer(10.0, streamed=True, gaps=counted.gaps)
    answer.head(200)
    for at_s in (10.5, 11.0, 13.0):
        answer.feed(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n', at_s)
    answer.feed(b"data: [DONE]\n\n", 14.0)
    answer.end(14.0)
    counted.started += 1
    counted.take(answer)

    found = counted.figures(4.0, IDLE)

    assert found.time_to_first_token.max_s == 0.5
    assert found.inter_token.max_s == 2.0
    assert found.time_per_output_token.max_s == 1.25
    assert found.latency.max_s == 4.0
    assert found.completion_tokens == 3
    assert found.are_tokens_events


def test_requests_under_way_are_told_apart() -> None:
    assert level(whole(1, 1.0), under_way=3).figures(1.0, IDLE).abandoned == 3


@pytest.mark.parametrize(
    ("effort", "is_near"),
    [(Effort(1.0, 0.0), False), (Effort(1.9, 0.0), True), (Effort(1.0, 0.9), True)],
)
def test_a_generator_at_its_limit_is_known(effort: Effort, *, is_near: bool) -> None:
    assert level(whole(1, 1.0)).figures(2.0, effort).is_generator_near_its_limit == is_near


def run_of(*figures: Figures, was_interrupted: bool = False) -> Run:
    return Run("http://h/v1", "tiny", 64, 0.5, was_interrupted, figures)


def test_the_table_lines_up() -> None:
    full = Trouble("429 full", "no room", is_refusal=True)
    first = level(whole(10, 0.0123)).figures(1.0, IDLE)
    second = level(whole(1000, 1.5), refused(full), refused(full)).figures(1.0, Effort(0.95, 0))

    assert as_text(run_of(first, second)).splitlines() == [
        "tiny at http://h/v1, prompts of 7 tokens, answers of at most 64",
        "",
        "whole answers",
        "                                       PER SECOND    WHOLE ANSWER ms",
        "     LOAD  ANSWERED  REFUSED  FAILED    REQ   TOK    p50   p95   p99",
        "4 at once         1        0       0    1.0  10.0   12.3  12.3  12.3",
        "4 at once         1        2       0    1.0  1000   1500  1500  1500",
        "",
        "whole, 4 at once: 2 refused, 429 full: no room",
        "whole, 4 at once: the generator was at 95% of a core: the figures are a lower bound",
    ]


def test_a_stream_has_columns_of_its_own() -> None:
    text = as_text(run_of(level(whole(3, 0.1), streamed=True).figures(1.0, IDLE)))

    assert "FIRST TOKEN ms" in text
    assert "BETWEEN TOKENS ms" in text
    assert "-" in text.splitlines()[-1]


def test_an_interrupted_run_says_so() -> None:
    text = as_text(run_of(level(whole(1, 1), under_way=2).figures(1.0, IDLE), was_interrupted=True))

    assert text.splitlines()[-1] == "Interrupted: 2 under way, which are not counted."


def test_json_has_everything_in_seconds() -> None:
    found = json.loads(as_json(run_of(level(whole(10, 0.25)).figures(2.0, IDLE))))

    assert found["url"] == "http://h/v1"
    [row] = found["figures"]
    assert row["latency"]["p99_s"] == 0.25
    assert row["requests_per_s"] == 0.5


@pytest.mark.parametrize(
    ("duration_s", "shown"),
    [(None, "-"), (0.0, "0.00"), (0.0012345, "1.23"), (0.01234, "12.3"), (1.5, "1500")],
)
def test_milliseconds_have_three_digits_that_count(duration_s: float | None, shown: str) -> None:
    assert milliseconds(duration_s) == shown
