# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A request that has been let in."""

import time
from dataclasses import dataclass, field

from helexa.gateway.authority import Caller, Claim
from helexa.gateway.dialect import Order
from helexa.gateway.priority import Standing
from helexa.protocol.messages.execution import Operation
from helexa.protocol.messages.models import WorkloadClass
from helexa.protocol.naming import random_id

_PUBLIC_PREFIX = {
    Operation.CHAT: "chatcmpl-",
    Operation.COMPLETION: "cmpl-",
    Operation.EMBEDDING: "embd-",
}


@dataclass(slots=True)
class Work:
    """What is to be done, for whom, and by which names."""

    request_id: str
    order: Order
    caller: Caller
    model: str
    """The canonical name."""
    body: bytes = field(init=False)
    """For the model's runtime."""
    prefix_digests: bytes = field(init=False)
    resumable: bool = False
    """Go on when the client leaves."""
    is_held: bool = False
    """Whether its cost has been set aside."""
    public_id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))
    """Unix time in seconds."""

    def __post_init__(self) -> None:
        """Give the answer its own id, and the runtime its body."""
        self.body, self.prefix_digests = self.order.render(self.model, stream=self.can_be_resumed)
        self.public_id = _PUBLIC_PREFIX[self.order.operation] + random_id(128)

    @property
    def standing(self) -> Standing:
        """What decides when it is served, if it has to wait."""
        return Standing(self.caller.account, self.order.priority, self.caller.yields)

    @property
    def is_bulk(self) -> bool:
        """Whether it is pulled by neurons with room, instead of being sent to one."""
        return self.order.workload == WorkloadClass.CHAT_BULK

    @property
    def can_be_resumed(self) -> bool:
        """Whether another gateway may have to serve the answer, or give its rest.

        Then it is made as a stream of events, and the log says what it is, and whose.
        """
        return self.order.stream or self.resumable or self.is_bulk

    @property
    def claim(self) -> Claim:
        """What this may cost at most."""
        return Claim(
            request_id=self.request_id,
            model=self.model,
            prompt_tokens=self.order.prompt_tokens,
            max_tokens=self.order.max_tokens,
            choices=self.order.choices,
        )
