# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The requests of a run, as they go on the wire."""

import itertools
from collections.abc import Callable, Iterator

from helexa.cli.bench.endpoint import Endpoint, chat_body
from helexa.cli.bench.plan import Asked

_PLACE = "#########"
"""Where the number of a made-up prompt goes; no key or word has so many."""
_WORDS = (
    "the river runs down to the sea and the old boat waits for a man who has not come home yet "
    "while birds fly over the house on the hill"
)


def requests(
    endpoint: Endpoint, model: str, asked: Asked, run: str
) -> Callable[[bool], Iterator[bytes]]:
    """Return what yields requests, given whether they are for streams.

    A made-up prompt begins with `run` and its number, so that no cache of prompts knows it from an
    earlier request or an earlier run.
    """
    text = asked.prompt if asked.prompt_tokens is None else made_up(asked.prompt_tokens, run)
    counter = itertools.count()

    def of_kind(streamed: bool) -> Iterator[bytes]:  # noqa: FBT001 - the only argument
        body = chat_body(
            model, text, streamed=streamed, max_tokens=asked.max_tokens, extra=asked.extra
        )
        return _numbered(endpoint.chat(body), counter, asked)

    return of_kind


def made_up(tokens: int, run: str) -> str:
    """Return a text of about so many tokens, with a place for a number."""
    words = itertools.islice(itertools.cycle(_WORDS.split()), max(0, tokens - 2))
    return " ".join([f"{run}{_PLACE}", *words])


def _numbered(request: bytes, counter: Iterator[int], asked: Asked) -> Iterator[bytes]:
    if asked.prompt_tokens is None:
        return itertools.repeat(request)
    before, place, after = request.partition(_PLACE.encode())
    numbers = (number % asked.prompts if asked.prompts else number for number in counter)
    # The number is as long as its place: the length of the body was told before it.
    return (before + b"%0*d" % (len(place), number) + after for number in numbers)
