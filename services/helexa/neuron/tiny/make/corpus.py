# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The dialogues that the model learns from, drawn from the phrases by a seeded generator."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from helexa.neuron.tiny.make.fields import Fields, fields_of
from helexa.neuron.tiny.make.phrases import Tool, Topic, phrases

Message = dict[str, object]
"""One message of a chat-completions request."""
ToolDefinition = dict[str, object]
"""One entry of a chat-completions request's `tools`."""

SHARE_WITH_TOOLS = 0.12
SHARE_WITH_NAME = 0.12
SHARE_OF_TOOLS_NOT_NEEDED = 0.15
SHARE_OF_TOOLS_DESCRIBED = 0.85
SHARE_OF_CALLS_ANSWERED = 0.6
TURNS = (1, 1, 1, 1, 2, 2, 3, 5)
TOOLS_OFFERED = (1, 1, 1, 2, 3)
TOPICS_BESIDE_TOOLS = ("greeting", "identity", "thanks", "fact")

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Messages that end with the assistant's, and the tools that were offered, if any."""

    messages: list[Message]
    tools: list[ToolDefinition] | None


def dialogue(rng: Random) -> Dialogue:
    """Draw one dialogue: some turns on any topic, a name to remember, or a tool to call."""
    kind = rng.random()
    if kind < SHARE_WITH_TOOLS:
        return _tool_dialogue(rng)
    corpus = phrases()
    turns = rng.choice(TURNS)
    topics = rng.choices(corpus.topics, [topic.weight for topic in corpus.topics], k=turns)
    messages = [message for topic in topics for message in _turn(rng, topic)]
    if kind < SHARE_WITH_TOOLS + SHARE_WITH_NAME:
        memory = corpus.memory
        name = rng.choice(corpus.words["names"])
        introduction = _pick(rng, memory.introductions).format(name=name)
        messages = [
            *_exchange(introduction, memory.welcome.format(name=name)),
            *messages,
            *_exchange(_pick(rng, memory.questions), memory.answer.format(name=name)),
        ]
    return Dialogue(_system(rng) + messages, None)


def _pick(rng: Random, items: Sequence[_Item]) -> _Item:
    return items[0] if len(items) == 1 else rng.choice(items)


def _exchange(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _system(rng: Random) -> list[Message]:
    content = rng.choice(phrases().systems)
    return [{"role": "system", "content": content}] if content else []


def _turn(rng: Random, topic: Topic) -> list[Message]:
    fields = fields_of(rng, topic.fields, topic.table)
    variant = rng.choices(topic.variants, [each.share for each in topic.variants])[0]
    question, answer = _pick(rng, variant.questions), _pick(rng, variant.answers)
    return _exchange(question.format(**fields), answer.format(**fields))


def _tool_dialogue(rng: Random) -> Dialogue:
    corpus = phrases()
    tools = rng.sample(corpus.tools, rng.choice(TOOLS_OFFERED))
    names = ["" if tool.integers else _pick(rng, tool.parameters) for tool in tools]
    definitions = [_definition(rng, tool, name) for tool, name in zip(tools, names, strict=True)]
    messages = _system(rng)
    if rng.random() < SHARE_OF_TOOLS_NOT_NEEDED:
        messages += _turn(rng, corpus.topic(rng.choice(TOPICS_BESIDE_TOOLS)))
    else:
        tool, name = rng.choice(list(zip(tools, names, strict=True)))
        messages += _call(rng, tool, name)
    return Dialogue(messages, definitions)


def _definition(rng: Random, tool: Tool, parameter: str) -> ToolDefinition:
    properties: dict[str, object] = {name: {"type": "integer"} for name in tool.integers}
    if not tool.integers:
        # A client describes its parameters or it does not: the model has to meet both.
        description = rng.choice(tool.parameter_descriptions) if rng.choice((True, False)) else ""
        text = {"type": "string", "description": description}
        properties[parameter] = text if description else {"type": "string"}
    function: dict[str, object] = {"name": tool.name}
    if rng.random() < SHARE_OF_TOOLS_DESCRIBED:
        function["description"] = _pick(rng, tool.descriptions)
    function["parameters"] = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
    }
    return {"type": "function", "function": function}


def _call(rng: Random, tool: Tool, parameter: str) -> list[Message]:
    fields = fields_of(rng, tool.fields, "")
    question = _pick(rng, tool.questions).format(**fields)
    call = {"name": tool.name, "arguments": _arguments(tool, parameter, fields)}
    messages: list[Message] = [
        {"role": "user", "content": question},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": call}],
        },
    ]
    if rng.random() < SHARE_OF_CALLS_ANSWERED:
        result = _pick(rng, tool.results).format(**fields)
        answer = tool.answer.format(**fields)
        messages += [{"role": "tool", "content": result}, {"role": "assistant", "content": answer}]
    return messages


def _arguments(tool: Tool, parameter: str, fields: Fields) -> Fields:
    if tool.integers:
        return {name: fields[name] for name in tool.integers}
    return {parameter: fields[tool.argument]}
