# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Bodies of OpenAI's requests: what is asked, what it needs, and the body for the runtime."""

from collections.abc import Callable
from hashlib import blake2b

import msgspec

from helexa.gateway import fields as check
from helexa.gateway.conversation import BYTES_PER_TOKEN, PREFIX_BYTES, read_messages
from helexa.gateway.fields import Fields, bad, encode, unsupported
from helexa.gateway.priority import FIELD, Priority, asked_priority
from helexa.protocol.errors import BadRequestError, UnsupportedError
from helexa.protocol.messages.execution import Operation
from helexa.protocol.messages.models import ModelConfig, Workload, WorkloadClass
from helexa.protocol.messages.routing import UserHints
from helexa.protocol.prefixes import SHORTEST_BYTES, digest_prefixes

MAX_INPUTS = 2048
NO_HINTS = UserHints()
JUST_CHAT = (Workload.CHAT,)
_PROMPTS = {
    Operation.CHAT: ("messages", b',"messages":'),
    Operation.COMPLETION: ("prompt", b',"prompt":'),
}
"""Where the prompt is, which is the last field of a runtime's body."""
_STREAMING = ("stream", "stream_options", FIELD)


class Customs(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway adds to a request."""

    default_max_tokens: int | None = None
    bulk_prompt_tokens: int = 16_384
    priority: str = ""
    """The caller's priority header."""
    may_claim_priority: bool = True
    """Whether the caller may go before others."""
    session: str | None = None
    """The caller's session header."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was understood."""

    operation: str
    model: str | None
    """As the caller named it."""
    fields: Fields
    """For the runtime, without the gateway's own."""
    stream: bool = False
    show_usage: bool = False
    needs: tuple[str, ...] = ()
    """`Workload` values."""
    workload: str = WorkloadClass.CHAT_INTERACTIVE
    priority: Priority = Priority.DEFAULT
    show_tier: bool = False
    """Whether the answer says under which of OpenAI's tiers it was made."""
    prompt_tokens: int = 0
    max_tokens: int | None = None
    choices: int = 1
    beginning: bytes | None = None
    """What the prompt begins with, if others may begin alike."""
    hints: UserHints = NO_HINTS

    @property
    def prefix_hash(self) -> str | None:
        """Digest of what the prompt begins with."""
        if self.beginning is None:
            return None
        return blake2b(self.beginning, digest_size=16).hexdigest()

    def render(self, model: str, *, stream: bool) -> tuple[bytes, bytes]:
        """Return the runtime's body, and the digests of the prompt's prefixes.

        With `stream` the runtime is asked for events, whatever the client gets.
        """
        own: Fields = {"model": model, **self.fields}
        if self.operation == Operation.EMBEDDING:
            return encode(own), b""
        if stream:
            own |= {"stream": True, "stream_options": {"include_usage": True}}
        name, begin = _PROMPTS[self.operation]
        prompt = encode(own.pop(name))
        body = b"%b%b%b}" % (encode(own)[:-1], begin, prompt)
        if len(prompt) < SHORTEST_BYTES:
            return body, b""
        tools = own.get("tools")
        return body, digest_prefixes(prompt, encode(tools) if tools else b"")


def read_order(operation: str, data: bytes, customs: Customs) -> Order:
    """Return what a body asks for.

    Raises:
        BadRequestError: it cannot be understood; `param` names the field.
        UnsupportedError: it asks for something that does not exist here.
    """
    reader, types = _READERS[operation]
    return reader(check.parse(data, types), customs)


def refuse_unsupported(order: Order, workloads: set[str], config: ModelConfig | None) -> None:
    """Refuse what none of the model's replicas can do.

    Raises:
        UnsupportedError: naming what is missing.
    """
    for need in order.needs:
        if need not in workloads:
            raise UnsupportedError(
                f"The model {order.model!r} does not take {_NAMES.get(need, need)}.",
                param="messages" if need in (Workload.VISION, Workload.AUDIO) else "model",
            )
    if "dimensions" in order.fields:
        wanted = order.fields["dimensions"]
        known = config.metadata.get("dimensions") if config else None
        if str(wanted) != known:
            unsupported("dimensions", "The length of this model's vectors cannot be chosen.")


_NAMES = {
    Workload.CHAT: "chats",
    Workload.COMPLETION: "plain prompts",
    Workload.EMBEDDING: "embedding requests",
    Workload.VISION: "images",
    Workload.AUDIO: "audio",
}


def _chat(fields: Fields, customs: Customs) -> Order:
    talk = read_messages(fields.get("messages"))
    if "tools" in fields or "tool_choice" in fields:
        _settle_tools(fields)
    tokens = talk.count_tokens()
    asked = _asked(fields, customs)
    is_bulk = asked is Priority.BULK or (asked is None and tokens > customs.bulk_prompt_tokens)
    workload = WorkloadClass.CHAT_BULK if is_bulk else WorkloadClass.CHAT_INTERACTIVE
    if Workload.VISION in talk.needs:
        workload = WorkloadClass.VISION_CAPTION
    elif Workload.AUDIO in talk.needs:
        workload = WorkloadClass.AUDIO_TRANSCRIPTION
    return _generating(
        Operation.CHAT,
        fields,
        customs,
        needs=(Workload.CHAT, *sorted(talk.needs)) if talk.needs else JUST_CHAT,
        workload=workload,
        priority=_priority(asked, workload),
        prompt_tokens=tokens,
        beginning=talk.beginning(),
    )


def _settle_tools(fields: Fields) -> None:
    tools = fields.get("tools")
    if isinstance(tools, list) and tools:
        for position, tool in enumerate(tools):
            if not isinstance(tool, dict):
                check.wrong_type(f"tools[{position}]", check.OBJECT, tool)
        return
    # Some runtimes refuse a choice among no tools.
    fields.pop("tools", None)
    if fields.get("tool_choice") in ("auto", "none"):
        del fields["tool_choice"]


def _completion(fields: Fields, customs: Customs) -> Order:
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if prompt is None:
        bad("prompt", "'prompt' is required.")
    if not isinstance(prompt, str):
        unsupported("prompt", "One request takes one prompt, as text.")
    encoded = prompt.encode("utf-8", "surrogatepass")
    return _generating(
        Operation.COMPLETION,
        fields | {"prompt": prompt},
        customs,
        needs=(Workload.COMPLETION,),
        workload=WorkloadClass.COMPLETION,
        priority=_priority(_asked(fields, customs), WorkloadClass.COMPLETION),
        prompt_tokens=len(encoded) // BYTES_PER_TOKEN + 1,
        beginning=encoded[:PREFIX_BYTES],
    )


def _generating(
    operation: str,
    fields: Fields,
    customs: Customs,
    *,
    needs: tuple[str, ...],
    workload: str,
    priority: Priority,
    prompt_tokens: int,
    beginning: bytes,
) -> Order:
    """Return the order, with `fields` without those that are for the gateway."""
    least = 1 if operation == Operation.CHAT else 0
    limit = check.cap(fields, customs.default_max_tokens, least=least)
    if "stop" in fields:
        check.stops(fields["stop"])
    stream = fields.pop("stream", None) is True
    options = fields.pop("stream_options", None)
    return Order(
        operation=operation,
        model=check.text(fields.pop("model", None)),
        stream=stream,
        show_usage=stream and isinstance(options, dict) and options.get("include_usage") is True,
        needs=needs,
        workload=workload,
        priority=priority,
        show_tier=fields.pop(FIELD, None) is not None,
        prompt_tokens=prompt_tokens,
        max_tokens=limit,
        choices=check.choices(fields["n"]) if "n" in fields else 1,
        beginning=beginning,
        hints=_hints(fields, customs),
        fields=fields,
    )


def _embedding(fields: Fields, customs: Customs) -> Order:
    given = fields.get("input")
    if given is None or given == []:
        bad("input", "'input' is required.")
    inputs = given if isinstance(given, list) else [given]
    if len(inputs) > MAX_INPUTS and not isinstance(inputs[0], int):
        bad("input", f"'input' holds at most {MAX_INPUTS} texts.")
    tokens = _count_inputs(inputs)
    if fields.get("encoding_format", "float") not in ("float", "base64"):
        bad("encoding_format", "'encoding_format' is 'float' or 'base64'.")
    return Order(
        operation=Operation.EMBEDDING,
        model=check.text(fields.pop("model", None)),
        needs=(Workload.EMBEDDING,),
        workload=WorkloadClass.EMBEDDING,
        priority=_priority(_asked(fields, customs), WorkloadClass.EMBEDDING),
        prompt_tokens=tokens,
        hints=_hints(fields, customs),
        fields={name: value for name, value in fields.items() if name not in _STREAMING},
    )


def _count_inputs(inputs: list[object]) -> int:
    kinds = {check.kind_of(each) for each in inputs}
    if kinds == {check.INTEGER}:
        return len(inputs)
    tokens = 0
    for position, each in enumerate(inputs):
        if isinstance(each, str) and kinds == {check.STRING}:
            tokens += len(each.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN + 1
        elif isinstance(each, list) and each and _count_integers(each) and kinds == {check.ARRAY}:
            tokens += len(each)
        else:
            check.wrong_type(f"input[{position}]", "string, or array of tokens", each)
    return tokens


def _count_integers(values: list[object]) -> bool:
    return all(check.kind_of(value) == check.INTEGER for value in values)


def _hints(fields: Fields, customs: Customs) -> UserHints:
    own = fields.pop("helexa", None)
    session = customs.session
    if session is None and "prompt_cache_key" in fields:
        session = check.text(fields["prompt_cache_key"])
    if not isinstance(own, dict):
        return UserHints(session=session) if session else NO_HINTS
    try:
        hints = UserHints.model_validate(own)
    except ValueError as error:
        raise BadRequestError("'helexa' holds no such hints.", param="helexa") from error
    return hints if hints.session else hints.model_copy(update={"session": session})


def _asked(fields: Fields, customs: Customs) -> Priority | None:
    if not customs.priority and FIELD not in fields:
        return None
    return asked_priority(customs.priority, fields.get(FIELD), may_claim=customs.may_claim_priority)


def _priority(asked: Priority | None, workload: str) -> Priority:
    if asked is not None:
        return asked
    return Priority.BULK if workload == WorkloadClass.CHAT_BULK else Priority.DEFAULT


_READERS: dict[str, tuple[Callable[[Fields, Customs], Order], dict[str, tuple[str, ...]]]] = {
    Operation.CHAT: (_chat, check.CHAT),
    Operation.COMPLETION: (_completion, check.COMPLETION),
    Operation.EMBEDDING: (_embedding, check.EMBEDDING),
}
"""What reads the body of an operation, and the types of its fields."""
