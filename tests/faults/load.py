# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Clients that keep a site busy, and what each of their requests came to."""

import asyncio
import contextlib
import itertools
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx
from tests.faults.order import Order

DEADLINE_S = 30.0
"""A request without an end after so long hangs. Undisturbed ones take about two seconds."""
PACE, PREFILL_S = 16.0, 0.2
PATIENCE_S = 0.25
"""Between two tries to resume, where nothing is said about it."""
EVENT = re.compile(r"(?:id: (\d+)\n)?data: (.*)")
RETRYABLE = (429, 502, 503, 504)


class WrongAnswerError(AssertionError):
    """An answer is not what was asked for: gaps, duplicates, other text, no or two ends."""


@dataclass(slots=True)
class Outcome:
    """What one request came to: exactly one of `answer`, `error`, `wrong` and `hung`."""

    kind: str = "hung"
    detail: str = ""
    """Of an error its code, of a wrong answer what is wrong."""
    streamed: bool = False
    resumed: int = 0
    """How often the rest was fetched from another gateway."""
    repeated: int = 0
    """How often it was sent again, because the connection was refused or broke unanswered."""
    took_s: float = 0.0


class ClearError(Exception):
    """The request ended in an error that says so in OpenAI's form."""


class ElsewhereError(Exception):
    """This gateway stops, and says so: another one has the rest, or takes the request."""


@dataclass(slots=True)
class Reading:
    """A stream as one client has received it, over as many connections as it took."""

    expected: str
    handle: str = ""
    next_event: int = 0
    text: str = ""
    ends: int = 0
    finished: int = 0

    def take(self, block: str) -> None:
        """Take in one block of the stream."""
        block = "\n".join(line for line in block.split("\n") if not line.startswith(":"))
        if not block:
            return
        found = EVENT.fullmatch(block)
        if found is None:
            raise WrongAnswerError(f"no event: {block!r}")
        if self.ends:
            raise WrongAnswerError(f"after the end: {block!r}")
        number, data = found.groups()
        if data == "[DONE]":
            self.ends += 1
            return
        event: dict[str, Any] = json.loads(data)
        if "error" in event:
            code = check_fields(event["error"])
            said = f"{code} ({event['error']['message']})"
            raise ElsewhereError if "resume" in event["error"] else ClearError(said)
        if number is None or int(number) != self.next_event:
            raise WrongAnswerError(f"event {number} where {self.next_event} was due")
        self.next_event += 1
        for choice in event["choices"]:
            self.text += choice["delta"].get("content") or ""
            self.finished += choice["finish_reason"] is not None

    def check(self) -> None:
        """Check the whole."""
        if (self.text, self.ends, self.finished) != (self.expected, 1, 1):
            raise WrongAnswerError(f"{self.ends} ends, {self.finished} finished, {self.text!r}")


@dataclass
class Client:
    """Asks as users of the OpenAI SDK with two gateways do.

    Refused and broken connections are tried at the other gateway, a stream goes on there where it
    broke. An error that arrives is an error.
    """

    http: httpx.AsyncClient
    gateways: Sequence[str]
    model: str
    headers: dict[str, str] = field(default_factory=dict)

    async def ask(self, number: int, *, streamed: bool) -> Outcome:
        """Return what one request came to."""
        outcome = Outcome(streamed=streamed)
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(DEADLINE_S):
                await (self._stream if streamed else self._whole)(number, outcome)
            outcome.kind = "answer"
        except TimeoutError:
            outcome.detail = f"resumed {outcome.resumed}, repeated {outcome.repeated}"
        except ClearError as error:
            outcome.kind, outcome.detail = "error", str(error)
        except WrongAnswerError as error:
            outcome.kind, outcome.detail = "wrong", str(error)
        outcome.took_s = loop.time() - began
        return outcome

    async def _whole(self, number: int, outcome: Outcome) -> None:
        body, expected = self._body(number, streamed=False), order_of(number).text()
        for gateway in self._gateways(number):
            try:
                answer = await self.http.post(self._url(gateway), json=body, headers=self.headers)
                check_status(answer)
            except (httpx.TransportError, ElsewhereError):
                outcome.repeated += 1
                await asyncio.sleep(PATIENCE_S)
                continue
            choice = answer.json()["choices"][0]
            if (choice["message"]["content"], choice["finish_reason"]) != (expected, "stop"):
                raise WrongAnswerError(answer.text)
            return

    async def _stream(self, number: int, outcome: Outcome) -> None:
        reading = Reading(order_of(number).text())
        for gateway in self._gateways(number):
            try:
                await self._read(gateway, number, reading)
            except (httpx.TransportError, ElsewhereError):
                outcome.resumed += reading.handle != ""
                outcome.repeated += reading.handle == ""
                await asyncio.sleep(PATIENCE_S)
            else:
                return

    async def _read(self, gateway: str, number: int, reading: Reading) -> None:
        """Read the stream, or its rest, at one gateway."""
        if reading.handle:
            url = f"{gateway}/v1/streams/{reading.handle}?from={reading.next_event}"
            asked = self.http.stream("GET", url, headers=self.headers)
        else:
            body = self._body(number, streamed=True)
            asked = self.http.stream("POST", self._url(gateway), json=body, headers=self.headers)
        async with asked as answer:
            if answer.status_code != 200:
                await answer.aread()
            check_status(answer)
            reading.handle = reading.handle or answer.headers["x-request-id"]
            async for block in blocks(answer):
                reading.take(block)
        reading.check()

    def _gateways(self, number: int) -> Iterator[str]:
        return itertools.islice(itertools.cycle(self.gateways), number, None)

    def _url(self, gateway: str) -> str:
        return f"{gateway}/v1/chat/completions"

    def _body(self, number: int, *, streamed: bool) -> dict[str, object]:
        messages = [{"role": "user", "content": order_of(number).prompt()}]
        return {"model": self.model, "messages": messages, "stream": streamed}


@dataclass
class Load:
    """Clients that ask again and again inside the block; at its end each finishes what it began."""

    client: Client
    clients: int = 16
    outcomes: list[Outcome] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _stopping: bool = False
    _working: list[asyncio.Task[None]] = field(default_factory=list)
    _ended: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def __aenter__(self) -> Self:
        self._working = [
            asyncio.create_task(self._work(streamed=bool(number % 2)))
            for number in range(self.clients)
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self._stopping = True
        if kind is not None:
            for task in self._working:
                task.cancel()
        await asyncio.gather(*self._working, return_exceptions=kind is not None)

    async def answered(self, more: int) -> None:
        """Return when `more` requests that begin from now on or run now have been answered."""
        before = self.count("answer")
        async with self._ended:
            await self._ended.wait_for(lambda: self.count("answer") >= before + more)

    def count(self, kind: str) -> int:
        """Return how many requests came to that."""
        return sum(each.kind == kind for each in self.outcomes)

    def details(self, kind: str) -> Counter[str]:
        """Return the details of those that came to that, counted."""
        return Counter(each.detail for each in self.outcomes if each.kind == kind)

    async def _work(self, *, streamed: bool) -> None:
        while not self._stopping:
            outcome = await self.client.ask(next(self._numbers), streamed=streamed)
            async with self._ended:
                self.outcomes.append(outcome)
                self._ended.notify_all()
            if outcome.kind != "answer":
                await asyncio.sleep(PATIENCE_S)


@contextlib.asynccontextmanager
async def clients(gateways: Sequence[str], model: str) -> AsyncIterator[Client]:
    """Yield a client with connections enough for every load."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=2 * DEADLINE_S, limits=limits) as http:
        yield Client(http, gateways, model)


async def blocks(answer: httpx.Response) -> AsyncIterator[str]:
    """Yield what stands between the blank lines of a stream; a last block must be whole."""
    rest = ""
    async for piece in answer.aiter_text():
        *whole, rest = (rest + piece).split("\n\n")
        for block in whole:
            yield block
    if rest:
        raise WrongAnswerError(f"it ends in {rest!r}")


def order_of(number: int) -> Order:
    """Return a request. Answers differ in length, so that a fault finds each at another point."""
    return Order(tokens=16 + number * 7 % 29, pace=PACE, delay=PREFILL_S, seed=f"s{number}")


def check_status(answer: httpx.Response) -> None:
    """Return if there is an answer; an error must be one that a client can act on."""
    if answer.status_code == 200:
        return
    code = check_fields(answer.json()["error"])
    told = answer.headers.get("x-should-retry")
    if told != ("true" if answer.status_code in RETRYABLE else "false"):
        raise WrongAnswerError(f"{answer.status_code} says x-should-retry: {told}")
    if told == "true" and not 1 <= int(answer.headers.get("retry-after", "0")) <= 120:
        raise WrongAnswerError(f"{answer.status_code} {code} names no time to retry after")
    message = answer.json()["error"]["message"]
    raise (
        ElsewhereError
        if code == "shutting_down"
        else ClearError(f"{answer.status_code} {code} ({message})")
    )


def check_fields(error: dict[str, Any]) -> str:
    """Return the code of an error in OpenAI's form."""
    if not {"message", "type", "param", "code"} <= error.keys():
        raise WrongAnswerError(f"no envelope: {error}")
    code: str = error["code"]
    return code
