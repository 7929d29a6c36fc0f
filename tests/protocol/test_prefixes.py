# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
from itertools import pairwise

import pytest

from helexa.protocol.prefixes import (
    DIGEST_BYTES,
    LENGTHS,
    digest_prefixes,
    join_digests,
    split_digests,
)


def shared(one: bytes, other: bytes) -> int:
    """Return how many digests two prompts have in common, from the start."""
    pairs = zip(split_digests(one), split_digests(other), strict=False)
    return sum(mine == yours for mine, yours in pairs)


@pytest.mark.parametrize(("size", "count"), [(0, 0), (511, 0), (512, 1), (4096, 7), (2 << 20, 32)])
def test_a_prompt_has_a_digest_for_each_length_that_it_reaches(size: int, count: int) -> None:
    assert len(digest_prefixes(b"x" * size)) == count * DIGEST_BYTES


def test_lengths_rise_by_a_quarter_at_most_once_they_are_long() -> None:
    steps = [(after - before) / before for before, after in pairwise(LENGTHS)]
    assert all(0 < step <= 0.25 for step in steps[3:])


def test_prompts_share_the_digests_of_what_they_share_and_no_more() -> None:
    one = digest_prefixes(b"a" * 3000 + b"b" * 3000)
    other = digest_prefixes(b"a" * 3000 + b"c" * 9000)
    assert shared(one, other) == sum(length <= 3000 for length in LENGTHS) == 5


def test_a_difference_early_on_changes_every_digest() -> None:
    assert shared(digest_prefixes(b"a" + b"x" * 5000), digest_prefixes(b"b" + b"x" * 5000)) == 0


def test_what_is_read_before_the_prompt_counts() -> None:
    assert shared(digest_prefixes(b"x" * 5000, b"tools"), digest_prefixes(b"x" * 5000)) == 0


def test_an_incomplete_digest_is_dropped() -> None:
    assert len(split_digests(b"12345678123")) == 1


def test_digests_travel_as_they_are() -> None:
    digests = digest_prefixes(b"x" * 5000)
    assert join_digests(split_digests(digests)) == digests
