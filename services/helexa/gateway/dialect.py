# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Bodies of OpenAI's requests: what is asked, and what it needs."""

from collections.abc import Callable

from helexa.gateway import fields as check
from helexa.gateway.conversation import (
    BYTES_PER_TOKEN,
    PREFIX_BYTES,
    beginning,
    count_tokens,
    read_messages,
)
from helexa.gateway.fields import Fields, bad, encode, unsupported
from helexa.gateway.order import Customs, Order, digests, hints_for, members, priority_of
from helexa.gateway.plain import read_plain
from helexa.gateway.priority import FIELD
from helexa.protocol.errors import BadRequestError, UnsupportedError
from helexa.protocol.messages.execution import Operation
from helexa.protocol.messages.models import ModelConfig, Workload, WorkloadClass
from helexa.protocol.messages.routing import UserHints

MAX_INPUTS = 2048
_STREAMING = ("stream", "stream_options", FIELD)


def read_order(operation: str, data: bytes, customs: Customs) -> Order:
    """Return what a body asks for.

    Raises:
        BadRequestError: it cannot be understood; `param` names the field.
        UnsupportedError: it asks for something that does not exist here.
    """
    plain = read_plain(data, customs) if operation == Operation.CHAT else None
    if plain is not None:
        return plain
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
    if order.dimensions is not None:
        known = config.metadata.get("dimensions") if config else None
        if str(order.dimensions) != known:
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
    tokens = count_tokens(talk.texts, len(talk.messages), talk.images)
    workload = customs.chat_workload(customs.asked(fields.get(FIELD)), tokens)
    if Workload.VISION in talk.needs:
        workload = WorkloadClass.VISION_CAPTION
    elif Workload.AUDIO in talk.needs:
        workload = WorkloadClass.AUDIO_TRANSCRIPTION
    return _generating(
        Operation.CHAT,
        fields,
        "messages",
        customs,
        needs=(Workload.CHAT, *sorted(talk.needs)),
        workload=workload,
        prompt_tokens=tokens,
        beginning=beginning(talk.texts[: talk.leading]),
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
        "prompt",
        customs,
        needs=(Workload.COMPLETION,),
        workload=WorkloadClass.COMPLETION,
        prompt_tokens=len(encoded) // BYTES_PER_TOKEN + 1,
        beginning=encoded[:PREFIX_BYTES],
    )


def _generating(
    operation: str,
    fields: Fields,
    name: str,
    customs: Customs,
    *,
    needs: tuple[str, ...],
    workload: str,
    prompt_tokens: int,
    beginning: bytes,
) -> Order:
    """Return the order whose prompt is the field `name`."""
    least = 1 if operation == Operation.CHAT else 0
    limit = check.cap(fields, customs.default_max_tokens, least=least)
    if "stop" in fields:
        check.stops(fields["stop"])
    stream = fields.pop("stream", None) is True
    options = fields.pop("stream_options", None)
    model = check.text(fields.pop("model", None))
    tier = fields.pop(FIELD, None)
    hints = _hints(fields, customs)
    prompt = encode(fields.pop(name))
    return Order(
        operation=operation,
        model=model,
        settings=members(fields),
        prompt=b',"%b":%b' % (name.encode(), prompt),
        prefix_digests=digests(prompt, fields.get("tools")),
        dimensions=fields.get("dimensions"),
        stream=stream,
        show_usage=stream and isinstance(options, dict) and options.get("include_usage") is True,
        needs=needs,
        workload=workload,
        priority=priority_of(customs.asked(tier), workload),
        show_tier=tier is not None,
        prompt_tokens=prompt_tokens,
        max_tokens=limit,
        choices=check.choices(fields["n"]) if "n" in fields else 1,
        beginning=beginning,
        hints=hints,
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
    model, hints = check.text(fields.pop("model", None)), _hints(fields, customs)
    return Order(
        operation=Operation.EMBEDDING,
        model=model,
        settings=members({k: v for k, v in fields.items() if k not in _STREAMING}),
        dimensions=fields.get("dimensions"),
        needs=(Workload.EMBEDDING,),
        workload=WorkloadClass.EMBEDDING,
        priority=priority_of(customs.asked(fields.get(FIELD)), WorkloadClass.EMBEDDING),
        prompt_tokens=tokens,
        hints=hints,
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
        return hints_for(session)
    try:
        hints = UserHints.model_validate(own)
    except ValueError as error:
        raise BadRequestError("'helexa' holds no such hints.", param="helexa") from error
    return hints if hints.session else hints.model_copy(update={"session": session})


_READERS: dict[str, tuple[Callable[[Fields, Customs], Order], dict[str, tuple[str, ...]]]] = {
    Operation.CHAT: (_chat, check.CHAT),
    Operation.COMPLETION: (_completion, check.COMPLETION),
    Operation.EMBEDDING: (_embedding, check.EMBEDDING),
}
"""What reads the body of an operation, and the types of its fields."""
