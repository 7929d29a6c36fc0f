# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""How an attempt ended."""

from dataclasses import dataclass

from helexa.neuron.splice import Prefix
from helexa.protocol.errors import HelexaError, WorkCancelledError
from helexa.protocol.messages.execution import TokenUsage


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended."""

    error: HelexaError | None
    usage: TokenUsage
    """Of this attempt."""
    first_token_s: float | None
    """From the acceptance to the first token; `None`: there was none."""
    total_s: float
    """From the acceptance to the end."""
    prefix_tokens: int = 0
    """Of earlier attempts."""

    @property
    def answer_usage(self) -> TokenUsage:
        """Of the whole answer, earlier attempts included."""
        return Prefix(self.prefix_tokens).whole(self.usage) if self.prefix_tokens else self.usage

    @property
    def is_settled(self) -> bool:
        """Whether nobody could do better; whoever cancels work withdraws it, or wants it anew."""
        error = self.error
        return error is None or not (
            error.to_reply().retryable or isinstance(error, WorkCancelledError)
        )

    @property
    def outcome(self) -> str:
        """`done`, `cancelled` or the code of an error."""
        return self.error.to_reply().code if self.error else "done"
