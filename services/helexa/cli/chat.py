# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa chat`: one question, or a conversation, with the answer as it comes."""

import argparse
import sys
from collections.abc import Iterator

from helexa.cli.api import AnswerError, Api, Json
from helexa.cli.reach import add_reach_arguments, gateway

IDLE_S = 300.0
"""Longest silence; a model that is still being loaded sends signs of life."""
PROMPT = "> "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the model, the question, and where the site is."""
    parser.add_argument(
        "model", nargs="?", help="a model's name; the site's first one unless given"
    )
    parser.add_argument("prompt", nargs="?", help="the question; without it, a conversation")
    parser.add_argument("--system", metavar="TEXT", help="what the model is told beforehand")
    parser.add_argument("--max-tokens", metavar="N", type=int, help="longest answer")
    add_reach_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the answer, or answers until the end of the input."""
    api = gateway(arguments)
    conversation = Conversation(
        api,
        arguments.model or _first_model(api),
        system=arguments.system,
        max_tokens=arguments.max_tokens,
    )
    if arguments.prompt is not None:
        conversation.ask(arguments.prompt)
    elif sys.stdin.isatty():
        _converse(conversation)
    else:
        conversation.ask(sys.stdin.read())
    return 0


class Conversation:
    """What has been said, and the model that answers."""

    def __init__(
        self, api: Api, model: str, *, system: str | None = None, max_tokens: int | None = None
    ) -> None:
        """Begin with what the model is told beforehand."""
        self._api = api
        self._model = model
        self._max_tokens = max_tokens
        self._said: list[dict[str, str]] = []
        if system:
            self._said.append({"role": "system", "content": system})

    def ask(self, question: str) -> None:
        """Print the answer to `question` as it comes.

        Raises:
            HelexaError: there is none, or it breaks off.
        """
        self._said.append({"role": "user", "content": question})
        body: dict[str, object] = {"model": self._model, "messages": self._said, "stream": True}
        if self._max_tokens is not None:
            body["max_tokens"] = self._max_tokens
        answer = ""
        for piece in _pieces(self._api, body):
            answer += piece
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
        self._said.append({"role": "assistant", "content": answer})


def _pieces(api: Api, body: Json) -> Iterator[str]:
    for event in api.stream("/v1/chat/completions", body, idle_s=IDLE_S):
        choices = event.get("choices")
        if isinstance(choices, list) and choices:
            content = choices[0].get("delta", {}).get("content")
            if content:
                yield str(content)


def _first_model(api: Api) -> str:
    models = api.get("/v1/models").get("data")
    names = [str(model["id"]) for model in models] if isinstance(models, list) else []
    if not names:
        raise AnswerError("the site has no model; add one with 'helexa models add'")
    return "helexa-tiny" if "helexa-tiny" in names else names[0]


def _converse(conversation: Conversation) -> None:
    sys.stdout.write("Ctrl-D ends the conversation.\n")
    while True:
        try:
            question = input(PROMPT)
        except EOFError:
            sys.stdout.write("\n")
            return
        if question.strip():
            conversation.ask(question)
