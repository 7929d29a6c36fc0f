# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The chat template: the text that a dialogue becomes, in training and when served alike."""

import functools
import importlib.resources
import json

import jinja2

from helexa.neuron.tiny.make.corpus import Dialogue


@functools.cache
def template_source() -> str:
    """The template itself, in Jinja; it goes into the model file as `tokenizer.chat_template`."""
    source = importlib.resources.files(__package__) / "chat_template.jinja"
    return source.read_text(encoding="utf-8").rstrip()


@functools.cache
def _template() -> jinja2.Template:
    # The output is a prompt, not a page: escaping would change what the model reads.
    environment = jinja2.Environment(autoescape=False)  # noqa: S701
    # llama.cpp writes plain JSON where Jinja's own filter would write HTML escapes.
    environment.filters["tojson"] = functools.partial(json.dumps, ensure_ascii=False)
    return environment.from_string(template_source())


def render(dialogue: Dialogue) -> str:
    """The dialogue as the model reads it."""
    text: str = _template().render(messages=dialogue.messages, tools=dialogue.tools)
    return text
