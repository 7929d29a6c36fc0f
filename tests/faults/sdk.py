# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Load by the stock OpenAI SDK, without its retries: whatever fails is seen."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from openai import APIError, AsyncOpenAI
from openai.types.chat import ChatCompletionUserMessageParam
from tests.faults.order import Order

DEADLINE_S = 60.0


@dataclass
class SdkLoad:
    """Clients that ask one address again and again inside the block, every second one streamed."""

    url: str
    model: str
    clients: int = 16
    pace: float = 20.0
    """Tokens a second of each answer."""
    answers: int = 0
    failures: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _stopping: bool = False
    _working: list[asyncio.Task[None]] = field(default_factory=list)
    _answered: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def __aenter__(self) -> Self:
        self._working = [
            asyncio.create_task(self._work(streamed=bool(k % 2))) for k in range(self.clients)
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

    async def more(self, answers: int) -> None:
        """Return when so many more have been answered, or at the first failure."""
        goal = self.answers + answers
        async with self._answered:
            await self._answered.wait_for(lambda: self.answers >= goal or self.failures)

    @property
    def summary(self) -> str:
        return f"{self.answers} answers, {Counter(self.failures)}"

    async def _work(self, *, streamed: bool) -> None:
        async with AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=DEADLINE_S
        ) as client:
            while not self._stopping:
                number = next(self._numbers)
                try:
                    await self._ask(client, number, streamed=streamed)
                except (APIError, AssertionError) as error:
                    self.failures.append(f"{number}: {type(error).__name__} {error}")
                else:
                    self.answers += 1
                async with self._answered:
                    self._answered.notify_all()

    async def _ask(self, client: AsyncOpenAI, number: int, *, streamed: bool) -> None:
        tokens = 10 + number * 7 % 40
        order = Order(tokens=tokens, pace=self.pace, delay=0.1, seed=f"s{number}")
        message: ChatCompletionUserMessageParam = {"role": "user", "content": order.prompt()}
        if not streamed:
            whole = await client.chat.completions.create(model=self.model, messages=[message])
            assert whole.choices[0].message.content == order.text()
            return
        text, finish = "", None
        async for chunk in await client.chat.completions.create(
            model=self.model, messages=[message], stream=True
        ):
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
        assert (text, finish) == (order.text(), "stop")
