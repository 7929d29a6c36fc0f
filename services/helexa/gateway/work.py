# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A request that has been let in."""

import time
from dataclasses import dataclass, field

from helexa.gateway.authority import Caller, Claim
from helexa.gateway.order import Order
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
    resumable: bool = False
    """Go on when the client leaves."""
    is_held: bool = False
    """Whether its cost has been set aside."""
    is_bulk: bool = field(init=False)
    """Whether it is pulled by neurons with room, instead of being sent to one."""
    can_be_resumed: bool = field(init=False)
    """Whether another gateway may have to serve the answer, or give its rest.

    Then it is made as a stream of events, and the log says what it is, and whose.
    """
    body: bytes = field(init=False)
    """For the model's runtime."""
    prefix_digests: bytes = field(init=False)
    public_id: str = field(init=False)
    created: int = field(init=False)
    """Unix time in seconds."""
    standing: Standing = field(init=False)
    """What decides when it is served, if it has to wait."""
    claim: Claim = field(init=False)
    """What this may cost at most."""

    def __post_init__(self) -> None:
        """Give the answer its own id, and the runtime its body."""
        order, caller = self.order, self.caller
        self.is_bulk = order.workload == WorkloadClass.CHAT_BULK
        self.can_be_resumed = order.stream or self.resumable or self.is_bulk
        self.body = order.render(self.model, stream=self.can_be_resumed)
        self.prefix_digests = order.prefix_digests
        self.public_id = _PUBLIC_PREFIX[order.operation] + random_id(128)
        self.created = int(time.time())
        self.standing = Standing(caller.account, order.priority, caller.yields)
        self.claim = Claim(
            self.request_id, self.model, order.prompt_tokens, order.max_tokens, order.choices
        )
