# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Most chats are read by one decode, and none of them is read differently for it."""

import json

import pytest

from helexa.gateway.dialect import read_order
from helexa.gateway.order import Customs, Order
from helexa.gateway.plain import read_plain
from helexa.gateway.priority import Priority
from helexa.protocol.errors import BadRequestError
from helexa.protocol.messages.execution import Operation

Body = dict[str, object]

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Grüße 🦊"}
LONG = {"role": "user", "content": "x" * 3000}
PLAIN: dict[str, Body] = {
    "a message": {"messages": [USER]},
    "a chat": {"model": "m", "messages": [SYSTEM, USER, {"role": "assistant", "content": ""}]},
    "a long prompt": {"messages": [SYSTEM, LONG, USER]},
    "nobody but the system": {"messages": [SYSTEM, SYSTEM]},
    "sampling": {
        "messages": [USER], "temperature": 1, "top_p": 0.5, "top_k": 3, "min_p": 0.1, "n": 2,
        "presence_penalty": 0, "frequency_penalty": 1e-3, "seed": 2**70, "stop": ["a", "b"],
    },
    "nulls": {"model": None, "messages": [USER], "temperature": None, "stream": None},
    "a stream": {"messages": [USER], "stream": True, "stream_options": {"include_usage": True}},
    "no stream": {"messages": [USER], "stream": False, "stream_options": {"include_usage": True}},
    "several caps": {"messages": [USER], "max_tokens": 9, "max_completion_tokens": 7},
    "a session": {"messages": [USER], "prompt_cache_key": "s", "user": "u"},
}  # fmt: skip


def encoded(body: Body) -> bytes:
    return json.dumps(body).encode()


def seen(order: Order) -> Body:
    facts: Body = {name: getattr(order, name) for name in order.__struct_fields__}
    for stream in (True, False):
        facts[f"body {stream}"] = json.loads(order.render("canonical", stream=stream))
    del facts["settings"]
    return facts | {"prefix": order.prefix_hash}


@pytest.mark.parametrize("body", PLAIN.values(), ids=PLAIN.keys())
@pytest.mark.parametrize(
    "customs",
    [Customs(), Customs(default_max_tokens=5, priority="bulk", session="t", bulk_prompt_tokens=9)],
    ids=["usual", "unusual"],
)
def test_a_plain_chat_is_read_as_any_other(body: Body, customs: Customs) -> None:
    # A name that nobody knows is passed on, so this body has to be read field by field.
    other = read_order(Operation.CHAT, encoded(body | {"odd": 1}), customs)

    plain = read_plain(encoded(body), customs)

    assert read_plain(encoded(body | {"odd": 1}), customs) is None
    assert plain is not None
    facts, others = seen(plain), seen(other)
    for name in ("body True", "body False"):
        assert others[name].pop("odd") == 1  # type: ignore[attr-defined]
    assert facts == others
    assert plain.fields | {"odd": 1} == other.fields


def test_the_prompt_is_the_end_of_a_body() -> None:
    order = read_order(Operation.CHAT, encoded({"messages": [USER], "seed": 1}), Customs())

    body = order.render("m", stream=True)

    assert body.startswith(b'{"model":"m","seed":1,"stream":true,')
    assert body.endswith(b'"messages":[{"role":"user","content":"' + "Grüße 🦊".encode() + b'"}]}')


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"messages": []}, id="no message"),
        pytest.param({"messages": [USER | {"name": "Ada"}]}, id="a name"),
        pytest.param({"messages": [{"role": "developer", "content": "x"}]}, id="another role"),
        pytest.param({"messages": [{"role": "user", "content": []}]}, id="parts"),
        pytest.param({"messages": [USER], "max_tokens": 0}, id="a cap of nothing"),
        pytest.param({"messages": [USER], "n": True}, id="a wrong type"),
        pytest.param({"messages": [USER], "service_tier": "flex"}, id="a class"),
        pytest.param({"messages": [USER], "tools": []}, id="tools"),
    ],
)
def test_what_needs_a_closer_look_is_not_plain(body: Body) -> None:
    assert read_plain(encoded(body), Customs()) is None


def test_a_wrong_class_in_the_header_is_refused() -> None:
    with pytest.raises(BadRequestError, match="x-helexa-priority"):
        read_order(Operation.CHAT, encoded({"messages": [USER]}), Customs(priority="soon"))


def test_a_class_in_the_header_counts() -> None:
    customs = Customs(priority="interactive")

    order = read_order(Operation.CHAT, encoded({"messages": [USER]}), customs)

    assert order.priority is Priority.INTERACTIVE
