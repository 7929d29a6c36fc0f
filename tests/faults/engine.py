# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A paced inference engine: a process of its own that speaks OpenAI's streaming API.

It stands in for vLLM or llama.cpp behind a neuron's `openai_proxy` backend, where a test needs many
streams of known pace and text and has no processor to spare: a thousand streams of five tokens a
second take about a tenth of a core. `tests.faults.order` says what a prompt can ask for, which
failures included.

- `POST /v1/chat/completions`, streamed or whole, with `max_tokens` and `stream_options`. A last
  message of the assistant is continued: the answer goes on after it, and what is not the beginning
  of this answer is 400.
- `GET /v1/models`, `GET /health`.
- `GET /counters`: a JSON object. `in_flight` and its parts `prefilling` and `decoding` are now;
  `started`, `finished`, `cancelled` (the client closed first), `failed` (as ordered) and `tokens`
  count up. A backend is idle when `in_flight` is 0.

    async with paced_engine() as engine:          # a free port; `engine.url`, `engine.pid`
        ...
        assert (await engine.counters())["in_flight"] == 0

From a shell: `python -m tests.faults.engine --port 9000 --model paced`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httpx
import uvloop
from tests.faults.order import Order
from typing_extensions import override

from helexa.process.parent import die_with_parent

Json = dict[str, object]
MODEL = "paced"
ROOT = Path(__file__).parents[2]
TICK_S = 0.01
"""Tokens that are due within a tick go out together."""
BURST = 64
"""Of an answer without a pace, so many tokens a tick."""
UP_WITHIN_S = 30.0


class BadPromptError(Exception):
    """The request cannot be answered."""


class Wheel:
    """Calls what is due, once a tick; sleeps while there is nothing."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due: defaultdict[int, list[Answer]] = defaultdict(list)
        self._at = 0
        self._runs = False

    def add(self, answer: "Answer", at_s: float) -> None:
        now = int(self._loop.time() / TICK_S)
        if not self._runs:
            self._runs, self._at = True, now
            self._loop.call_later(TICK_S, self._turn)
        self._due[max(int(at_s / TICK_S) + 1, self._at + 1)].append(answer)

    def _turn(self) -> None:
        now = int(self._loop.time() / TICK_S)
        while self._at < now:
            self._at += 1
            for answer in self._due.pop(self._at, ()):
                answer.step(self._loop.time())
        if self._due:
            self._loop.call_later(TICK_S, self._turn)
        else:
            self._runs = False


class Engine:
    """What all connections share."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.wheel = Wheel()
        self.counts: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        """Requests that have failed as ordered, by seed."""

    def counters(self) -> Json:
        names = ("prefilling", "decoding", "started", "finished", "cancelled", "failed", "tokens")
        now = {name: self.counts[name] for name in names}
        return {"in_flight": now["prefilling"] + now["decoding"], **now}


class Answer:
    """One answer: a step at a time, when the wheel says so."""

    def __init__(self, connection: "Connection", request: Json) -> None:
        self.order, self.number = _asked(request)
        self._connection = connection
        self._engine = connection.engine
        self._streams = bool(request.get("stream"))
        options = cast("Json", request.get("stream_options") or {})
        self._shows_usage = bool(options.get("include_usage"))
        most = cast("int", request.get("max_tokens") or request.get("max_completion_tokens") or 0)
        self._first = self.number
        self._end = min(self.order.tokens, self.number + most) if most else self.order.tokens
        self._failure = self._failure_now()
        self._began_s = 0.0
        self._phase = "prefilling"
        # A thousand streams are cheap because each token is put into a ready event.
        self._before, self._after = self._chunk({"content": "\0"}).split(b'"\\u0000"')

    def begin(self) -> None:
        counts = self._engine.counts
        counts["started"] += 1
        if self._failure and self._failure[0] == "status":
            counts["failed"] += 1
            status = self._failure[1]
            self._connection.answer(status, {"error": {"message": "as ordered", "code": status}})
            return
        counts[self._phase] += 1
        if self._streams:
            self._connection.begin_stream()
            self._send([self._chunk({"role": "assistant", "content": ""})])
        now_s = asyncio.get_running_loop().time()
        self._began_s = now_s + self.order.delay
        self._engine.wheel.add(self, self._began_s)

    def step(self, now_s: float) -> None:
        """Send what is due."""
        if self._connection.answering is not self:
            return
        if self._phase == "prefilling":
            self._enter("decoding")
        if self._connection.is_full:
            self._engine.wheel.add(self, now_s + TICK_S)
            return
        pace = self.order.pace
        due = self._first + int((now_s - self._began_s) * pace) + 1 if pace else self.number + BURST
        stop = min(due, self._end, self._failure[1] if self._failure else self._end)
        texts = [self.order.token(number) for number in range(self.number, stop)]
        self._engine.counts["tokens"] += len(texts)
        self.number = max(stop, self.number)
        if self._streams:
            self._send([b"%b%b%b" % (self._before, _json(text), self._after) for text in texts])
        if self._failure and self.number >= self._failure[1]:
            self._fail(self._failure[0])
        elif self.number >= self._end:
            self._finish()
        else:
            ahead_s = (self.number - self._first) / pace if pace else 0.0
            self._engine.wheel.add(self, max(self._began_s + ahead_s, now_s))

    def leave(self, how: str) -> None:
        """Count the end of the answer."""
        self._enter("")
        self._engine.counts[how] += 1

    def _enter(self, phase: str) -> None:
        if self._phase:
            self._engine.counts[self._phase] -= 1
        self._phase = phase
        if phase:
            self._engine.counts[phase] += 1

    def _failure_now(self) -> tuple[str, int] | None:
        order, failed = self.order, self._engine.failed
        if order.failure is None or (order.times and failed[order.seed] >= order.times):
            return None
        failed[order.seed] += 1
        return order.failure

    def _finish(self) -> None:
        made = self._end - self._first
        usage = {"prompt_tokens": 8, "completion_tokens": made, "total_tokens": 8 + made}
        finish = "stop" if self._end == self.order.tokens else "length"
        self.leave("finished")
        if not self._streams:
            text = "".join(map(self.order.token, range(self._first, self._end)))
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": finish}
            whole = {"object": "chat.completion", "choices": [choice], "usage": usage}
            self._connection.answer(200, self._frame() | whole)
            return
        last = [self._chunk({}, finish)]
        if self._shows_usage:
            last.append(_event(self._frame() | {"choices": [], "usage": usage}))
        self._send([*last, b"data: [DONE]\n\n"])
        self._connection.end_stream()

    def _fail(self, kind: str) -> None:
        if kind == "stall":
            return
        self.leave("failed")
        if kind == "garbage":
            self._send([b"data: {garbage\n\n", b"data: [DONE]\n\n"])
            self._connection.end_stream()
        else:
            self._connection.break_off(in_order=kind == "cut")

    def _frame(self) -> Json:
        return {
            "id": f"chatcmpl-{self.order.seed}",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": self._engine.model,
        }

    def _chunk(self, delta: Json, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _event(self._frame() | {"choices": [choice]})

    def _send(self, events: list[bytes]) -> None:
        if events:
            self._connection.write(b"".join(events))


class Connection(asyncio.Protocol):
    """HTTP/1.1, one request after the other."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.answering: Answer | None = None
        self.is_full = False
        self._data = b""
        self._transport: asyncio.Transport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        answering, self.answering = self.answering, None
        if answering is not None:
            answering.leave("cancelled")

    @override
    def pause_writing(self) -> None:
        self.is_full = True

    @override
    def resume_writing(self) -> None:
        self.is_full = False

    @override
    def data_received(self, data: bytes) -> None:
        self._data += data
        head, mark, body = self._data.partition(b"\r\n\r\n")
        if not mark:
            return
        lines = head.decode("latin-1").split("\r\n")
        fields = {
            name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines[1:])
        }
        size = int(fields.get("content-length", 0))
        if len(body) >= size:
            self._data = body[size:]
            self._serve(lines[0].split(" ")[1], body[:size])

    def answer(self, status: int, body: Json) -> None:
        self.answering = None
        data = json.dumps(body).encode()
        head = (
            f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
        )
        self._raw(head.encode() + b"\r\n\r\n" + data)

    def begin_stream(self) -> None:
        self._raw(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )

    def write(self, data: bytes) -> None:
        self._raw(b"%x\r\n%b\r\n" % (len(data), data))

    def end_stream(self) -> None:
        self.answering = None
        self._raw(b"0\r\n\r\n")

    def break_off(self, *, in_order: bool) -> None:
        self.answering = None
        if self._transport is not None:
            self._transport.close() if in_order else self._transport.abort()

    def _serve(self, path: str, body: bytes) -> None:
        if path == "/v1/chat/completions":
            try:
                self.answering = Answer(self, json.loads(body))
            except (BadPromptError, ValueError) as error:
                self.answer(
                    400, {"error": {"message": str(error), "type": "invalid_request_error"}}
                )
            else:
                self.answering.begin()
            return
        listing: Json = {"object": "list", "data": [{"id": self.engine.model, "object": "model"}]}
        known: dict[str, Callable[[], Json]] = {
            "/v1/models": lambda: listing,
            "/health": lambda: {"status": "ok"},
            "/counters": self.engine.counters,
        }
        make = known.get(path)
        self.answer(200, make()) if make else self.answer(404, {"error": {"message": "no"}})

    def _raw(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _asked(request: Json) -> tuple[Order, int]:
    """Return what is asked for and the token that the answer begins with."""
    messages = cast("list[Json]", request.get("messages") or [])
    prompts = [str(each.get("content")) for each in messages if each.get("role") == "user"]
    if not prompts:
        raise BadPromptError("there is no message of a user")
    order = Order.parse(prompts[-1])
    if messages[-1].get("role") != "assistant":
        return order, 0
    number = order.after(str(messages[-1].get("content") or ""))
    if number is None:
        raise BadPromptError("this is not the beginning of the answer")
    return order, number


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _event(data: Json) -> bytes:
    return b"data: " + _json(data) + b"\n\n"


@dataclass(slots=True)
class PacedEngine:
    """A running engine."""

    process: asyncio.subprocess.Process
    port: int
    model: str

    @property
    def url(self) -> str:
        """The base URL, as a model's `listen_endpoint` names it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    async def counters(self) -> dict[str, int]:
        async with httpx.AsyncClient(timeout=10) as http:
            found: dict[str, int] = (await http.get(f"{self.url}/counters")).json()
            return found

    async def until(self, wanted: Callable[[dict[str, int]], bool], within_s: float) -> float:
        """Return after how many seconds the counters were as `wanted`."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with httpx.AsyncClient(timeout=10) as http, asyncio.timeout(within_s):
            while not wanted((await http.get(f"{self.url}/counters")).json()):
                await asyncio.sleep(0.02)
        return loop.time() - began

    async def idle(self, within_s: float) -> float:
        """Return after how many seconds nothing was in flight."""
        return await self.until(lambda counters: counters["in_flight"] == 0, within_s)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)
            await self.process.wait()


@contextlib.asynccontextmanager
async def paced_engine(port: int = 0, model: str = MODEL) -> AsyncIterator[PacedEngine]:
    """Run an engine inside the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.engine", "--port", str(port), "--model", model),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        preexec_fn=die_with_parent(os.getpid()),
    )
    engine = PacedEngine(process, port, model)
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), UP_WITHIN_S)
        engine.port = int(json.loads(line)["port"])
        yield engine
    finally:
        # It may have been frozen.
        await engine.stop(signal.SIGKILL)


async def _serve(port: int, model: str) -> None:
    loop = asyncio.get_running_loop()
    engine = Engine(model)
    server = await loop.create_server(lambda: Connection(engine), "127.0.0.1", port, backlog=4096)
    asked = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, asked.set)
    sys.stdout.write(json.dumps({"port": server.sockets[0].getsockname()[1]}) + "\n")
    sys.stdout.flush()
    await asked.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model", default=MODEL)
    arguments = parser.parse_args()
    uvloop.run(_serve(arguments.port, arguments.model))


if __name__ == "__main__":
    main()
