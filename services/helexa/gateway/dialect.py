# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Bodies of OpenAI's requests: what is asked, what it needs, and the body for the runtime."""

from dataclasses import dataclass
from hashlib import blake2b

from helexa.gateway import fields as check
from helexa.gateway.conversation import BYTES_PER_TOKEN, PREFIX_BYTES, read_messages
from helexa.gateway.fields import Fields, bad, encode, unsupported
from helexa.gateway.priority import FIELD, Priority, asked_priority
from helexa.protocol.errors import BadRequestError, UnsupportedError
from helexa.protocol.messages.execution import Operation
from helexa.protocol.messages.models import ModelConfig, Workload, WorkloadClass
from helexa.protocol.messages.routing import UserHints
from helexa.protocol.prefixes import digest_prefixes

MAX_INPUTS = 2048
NO_HINTS = UserHints()
OWN_FIELDS = ("model", "helexa", "stream", "stream_options", FIELD)
"""Fields that are for the gateway; it sets its own where the runtime needs them."""


@dataclass(frozen=True, slots=True)
class Customs:
    """What a gateway adds to a request."""

    default_max_tokens: int | None = None
    bulk_prompt_tokens: int = 16_384
    priority: str = ""
    """The caller's priority header."""
    may_claim_priority: bool = True
    """Whether the caller may go before others."""
    session: str | None = None
    """The caller's session header."""


@dataclass(frozen=True, slots=True)
class Order:
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
    prefix_hash: str | None = None
    hints: UserHints = NO_HINTS

    def render(self, model: str, *, stream: bool) -> tuple[bytes, bytes]:
        """Return the runtime's body, and the digests of the prompt's prefixes.

        With `stream` the runtime is asked for events, whatever the client gets.
        """
        own: Fields = {"model": model, **self.fields}
        if self.operation == Operation.EMBEDDING:
            return encode(own), b""
        if stream:
            own |= {"stream": True, "stream_options": {"include_usage": True}}
        name = "messages" if self.operation == Operation.CHAT else "prompt"
        prompt = encode(own.pop(name))
        tools = own.get("tools")
        body = b'%b,"%b":%b}' % (encode(own)[:-1], name.encode(), prompt)
        return body, digest_prefixes(prompt, encode(tools) if tools else b"")


def read_order(operation: str, data: bytes, customs: Customs) -> Order:
    """Return what a body asks for.

    Raises:
        BadRequestError: it cannot be understood; `param` names the field.
        UnsupportedError: it asks for something that does not exist here.
    """
    fields = check.parse(data)
    reader = {
        Operation.CHAT: _chat,
        Operation.COMPLETION: _completion,
        Operation.EMBEDDING: _embedding,
    }[operation]
    return reader(fields, customs)


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
    wanted = order.fields.get("dimensions")
    if wanted is not None:
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
    check.check(fields, check.CHAT)
    talk = read_messages(fields.get("messages"))
    for position, tool in enumerate(_list(fields, "tools")):
        if not isinstance(tool, dict):
            check.wrong_type(f"tools[{position}]", check.OBJECT, tool)
    if not _list(fields, "tools"):
        # Some runtimes refuse a choice among no tools.
        fields.pop("tools", None)
        if fields.get("tool_choice") in ("auto", "none"):
            del fields["tool_choice"]
    workload = WorkloadClass.CHAT_INTERACTIVE
    if Workload.VISION in talk.needs:
        workload = WorkloadClass.VISION_CAPTION
    elif Workload.AUDIO in talk.needs:
        workload = WorkloadClass.AUDIO_TRANSCRIPTION
    elif _is_bulk(fields, customs, talk.prompt_tokens):
        workload = WorkloadClass.CHAT_BULK
    return _generating(
        Operation.CHAT,
        fields | {"messages": talk.messages},
        customs,
        needs=(Workload.CHAT, *sorted(talk.needs)),
        workload=workload,
        prompt_tokens=talk.prompt_tokens,
        prefix_hash=talk.prefix_hash,
    )


def _completion(fields: Fields, customs: Customs) -> Order:
    check.check(fields, check.COMPLETION)
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
        prompt_tokens=len(encoded) // BYTES_PER_TOKEN + 1,
        prefix_hash=_hash(encoded),
    )


def _generating(
    operation: str,
    fields: Fields,
    customs: Customs,
    *,
    needs: tuple[str, ...],
    workload: str,
    prompt_tokens: int,
    prefix_hash: str,
) -> Order:
    least = 1 if operation == Operation.CHAT else 0
    limit = check.cap(fields, customs.default_max_tokens, least=least)
    check.stops(fields)
    stream = fields.get("stream") is True
    options = fields.get("stream_options")
    return Order(
        operation=operation,
        model=check.text(fields, "model"),
        fields=_without_own(fields),
        stream=stream,
        show_usage=stream and isinstance(options, dict) and options.get("include_usage") is True,
        needs=needs,
        workload=workload,
        priority=_priority(fields, customs, workload),
        show_tier=FIELD in fields,
        prompt_tokens=prompt_tokens,
        max_tokens=limit,
        choices=check.choices(fields),
        prefix_hash=prefix_hash,
        hints=_hints(fields, customs),
    )


def _embedding(fields: Fields, customs: Customs) -> Order:
    check.check(fields, check.EMBEDDING)
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
        model=check.text(fields, "model"),
        fields=_without_own(fields),
        needs=(Workload.EMBEDDING,),
        workload=WorkloadClass.EMBEDDING,
        priority=_priority(fields, customs, WorkloadClass.EMBEDDING),
        prompt_tokens=tokens,
        hints=_hints(fields, customs),
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
    own = fields.get("helexa")
    session = customs.session or check.text(fields, "prompt_cache_key")
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


def _priority(fields: Fields, customs: Customs, workload: str) -> Priority:
    asked = _asked(fields, customs)
    if asked is not None:
        return asked
    return Priority.BULK if workload == WorkloadClass.CHAT_BULK else Priority.DEFAULT


def _is_bulk(fields: Fields, customs: Customs, prompt_tokens: int) -> bool:
    asked = _asked(fields, customs)
    if asked is None:
        return prompt_tokens > customs.bulk_prompt_tokens
    return asked is Priority.BULK


def _without_own(fields: Fields) -> Fields:
    made = dict(fields)
    for name in OWN_FIELDS:
        made.pop(name, None)
    return made


def _list(fields: Fields, name: str) -> list[object]:
    value = fields.get(name)
    return value if isinstance(value, list) else []


def _hash(data: bytes) -> str:
    return blake2b(data[:PREFIX_BYTES], digest_size=16).hexdigest()
