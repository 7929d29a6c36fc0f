# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Chats as most are: messages of text alone, and common settings, each of its type.

Decoding one checks it too, so that nothing has to look at each field. What has anything else in it,
or anything wrong, is read field by field, which tells the field of an error.
"""

from typing import Annotated, Literal

import msgspec

from helexa.gateway.conversation import beginning, count_tokens
from helexa.gateway.fields import MAX_CHOICES, encode
from helexa.gateway.order import Customs, Order, digests, hints_for, members, priority_of
from helexa.protocol.messages.execution import Operation
from helexa.protocol.messages.models import Workload

_NEEDS = (Workload.CHAT,)
_Cap = Annotated[int, msgspec.Meta(ge=1)] | None
_Number = int | float | None


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """A message of text."""

    role: Literal["system", "user", "assistant"]
    content: str


class PlainChat(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of such a chat. Fields that are absent or null are `None`."""

    messages: list[Message] | None = None
    model: str | None = None
    stream: bool | None = None
    stream_options: dict[str, object] | None = None
    max_tokens: _Cap = None
    max_completion_tokens: _Cap = None
    max_output_tokens: _Cap = None
    temperature: _Number = None
    top_p: _Number = None
    top_k: int | None = None
    min_p: _Number = None
    presence_penalty: _Number = None
    frequency_penalty: _Number = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHOICES)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    user: str | None = None
    prompt_cache_key: str | None = None


_decode = msgspec.json.Decoder(PlainChat).decode


def read_plain(data: bytes, customs: Customs) -> Order | None:
    """Return what a plain chat asks for, `None` where the body is another one.

    Raises:
        BadRequestError: the caller's priority header is wrong.
    """
    try:
        chat = _decode(data)
    except (ValueError, RecursionError):
        return None
    if not chat.messages:
        return None
    texts = [each.content for each in chat.messages]
    leading = 0
    for each in chat.messages:
        leading += 1
        if each.role != "system":
            break
    tokens = count_tokens(texts, len(texts))
    asked = customs.asked(None)
    workload = customs.chat_workload(asked, tokens)
    model, stream, options = chat.model, chat.stream is True, chat.stream_options
    limit = _fold_caps(chat, customs.default_max_tokens)
    prompt = encode(chat.messages)
    chat.messages = chat.model = chat.stream = chat.stream_options = None
    return Order(
        operation=Operation.CHAT,
        model=model,
        settings=members(chat),
        prompt=b',"messages":' + prompt,
        prefix_digests=digests(prompt, None),
        stream=stream,
        show_usage=stream and options is not None and options.get("include_usage") is True,
        needs=_NEEDS,
        workload=workload,
        priority=priority_of(asked, workload),
        prompt_tokens=tokens,
        max_tokens=limit,
        choices=chat.n or 1,
        beginning=beginning(texts[:leading]),
        hints=hints_for(customs.session or chat.prompt_cache_key),
    )


def _fold_caps(chat: PlainChat, default: int | None) -> int | None:
    """Fold the three names of the token cap into one and return it."""
    given = (chat.max_tokens, chat.max_completion_tokens, chat.max_output_tokens)
    found = [each for each in given if each is not None]
    limit = min(found) if found else default
    chat.max_tokens = limit
    chat.max_completion_tokens = chat.max_output_tokens = None
    return limit
