# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What this gateway saw of each neuron and model, collected for the schedulers."""

from dataclasses import dataclass, field

from helexa.protocol.messages.models import ModelId
from helexa.protocol.messages.routing import Outcome

MAX_SAMPLES = 32


SHORT_PROMPT_TOKENS = 128


def as_of_a_short_prompt(first_token_s: float, unread_tokens: int) -> float:
    """Return about how long the first token would have taken, had there been little to read.

    So a neuron that is sent what nobody has read is not held to be slower than one that is sent
    what it knows.
    """
    return first_token_s * SHORT_PROMPT_TOKENS / (SHORT_PROMPT_TOKENS + max(0, unread_tokens))


@dataclass(slots=True)
class _Tally:
    completed: int = 0
    failed: int = 0
    refused: int = 0
    first_token_s: list[float] = field(default_factory=list)
    duration_s: list[float] = field(default_factory=list)


class Outcomes:
    """Counts since the last report."""

    def __init__(self) -> None:
        """Begin at zero."""
        self._tallies: dict[tuple[str, str], _Tally] = {}

    def completed(
        self,
        neuron_id: str,
        model: str,
        first_token_s: float | None,
        duration_s: float,
        *,
        unread_tokens: int = 0,
    ) -> None:
        """Count an answer that came to its end.

        Args:
            neuron_id: who gave it.
            model: of which model.
            first_token_s: from the neuron's word that it takes the request.
            duration_s: from there too.
            unread_tokens: those of the prompt that the neuron had to read.
        """
        tally = self._of(neuron_id, model)
        tally.completed += 1
        if first_token_s is not None and len(tally.first_token_s) < MAX_SAMPLES:
            tally.first_token_s.append(as_of_a_short_prompt(first_token_s, unread_tokens))
        if len(tally.duration_s) < MAX_SAMPLES:
            tally.duration_s.append(duration_s)

    def failed(self, neuron_id: str, model: str) -> None:
        """Count an answer that broke."""
        self._of(neuron_id, model).failed += 1

    def refused(self, neuron_id: str, model: str) -> None:
        """Count a refusal."""
        self._of(neuron_id, model).refused += 1

    def take_all(self) -> tuple[Outcome, ...]:
        """Return what was counted, and begin anew."""
        taken, self._tallies = self._tallies, {}
        return tuple(
            Outcome(
                neuron_id=neuron_id,
                model=ModelId(model),
                completed=tally.completed,
                failed=tally.failed,
                refused=tally.refused,
                first_token_s=tuple(tally.first_token_s),
                duration_s=tuple(tally.duration_s),
            )
            for (neuron_id, model), tally in taken.items()
        )

    def _of(self, neuron_id: str, model: str) -> _Tally:
        return self._tallies.setdefault((neuron_id, model), _Tally())
