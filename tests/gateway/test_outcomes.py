# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import pytest

from helexa.gateway.outcomes import Outcomes, as_of_a_short_prompt


def test_reading_a_long_prompt_does_not_make_a_neuron_slow() -> None:
    outcomes = Outcomes()
    outcomes.completed("reads", "m", 0.6, 1.0, unread_tokens=1600)
    outcomes.completed("knows", "m", 0.05, 0.3, unread_tokens=8)
    reads, knows = (each.first_token_s[0] for each in outcomes.take_all())
    assert reads == pytest.approx(knows, rel=0.2)


@pytest.mark.parametrize("unread", [0, -3])
def test_what_had_not_to_be_read_counts_as_it_was(unread: int) -> None:
    assert as_of_a_short_prompt(0.05, unread) == 0.05
