# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The words that the model is taught: the types of corpus.toml and its reader."""

import functools
import importlib.resources
import tomllib
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

Words = Annotated[tuple[str, ...], BeforeValidator(str.split)]
Texts = tuple[str, ...]


class Entry(BaseModel):
    """A table of corpus.toml: an unknown key in it is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Variant(Entry):
    """Ways to ask one thing, and ways to answer it."""

    share: float = 1.0
    """How often this variant comes, relative to the topic's other variants."""
    questions: Texts
    answers: Texts


class Topic(Entry):
    """One kind of question."""

    name: str
    weight: float
    """How often this topic comes, relative to the other topics."""
    table: str = ""
    """The table whose keys and values fill the texts."""
    fields: str = ""
    """The function of fields.py whose values fill the texts."""
    variants: tuple[Variant, ...]


class Tool(Entry):
    """A function that clients may offer, and the dialogue around a call of it."""

    name: str
    fields: str
    descriptions: Texts
    parameters: Texts = ()
    """Names for the one text parameter."""
    parameter_descriptions: Texts = ()
    argument: str = ""
    """The field that is the text parameter's value."""
    integers: Texts = ()
    """Whole-number parameters, each the field of its name; used in place of a text parameter."""
    questions: Texts
    results: Texts
    answer: str


class Memory(Entry):
    """A name given at the start of a dialogue and asked for at its end."""

    introductions: Texts
    welcome: str
    questions: Texts
    answer: str


class Images(Entry):
    """Questions about a drawn image, and what there is to draw."""

    questions: Texts
    shape: str
    plain: str
    shapes: Texts
    colours: dict[str, tuple[int, int, int]]


class Phrases(Entry):
    """Everything in corpus.toml."""

    systems: Texts
    cities: Texts
    words: dict[str, Words]
    tables: dict[str, dict[str, str]]
    topics: tuple[Topic, ...]
    memory: Memory
    tools: tuple[Tool, ...]
    images: Images

    def topic(self, name: str) -> Topic:
        """The topic of that name."""
        return next(topic for topic in self.topics if topic.name == name)

    def all_cities(self) -> list[str]:
        """Every city, capitals included, in alphabetical order."""
        return sorted({*self.tables["capitals"].values(), *self.cities})


@functools.cache
def phrases() -> Phrases:
    """What corpus.toml holds; read once."""
    source = importlib.resources.files(__package__) / "corpus.toml"
    return Phrases.model_validate(tomllib.loads(source.read_text(encoding="utf-8")))
