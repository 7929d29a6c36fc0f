# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One request before all others: it loads the model, and finds out what is wrong."""

import asyncio
import json
import time
from collections.abc import Iterator

from helexa.cli.api import AnswerError
from helexa.cli.bench import trouble
from helexa.cli.bench.answer import Answer
from helexa.cli.bench.endpoint import Endpoint
from helexa.cli.bench.histogram import Histogram
from helexa.cli.bench.pool import Pool
from helexa.protocol.errors import HelexaError, UnavailableError

WITHIN_S = 600.0
"""Longest that a model which is not loaded may take."""
DEFAULT_MODEL = "helexa-tiny"
_HINTS = {
    "401": "; give a key with --key-file",
    "403": "; give another key with --key-file",
    "certificate_refused": "; name who has signed it with --ca-file",
}


async def first_model(endpoint: Endpoint) -> str:
    """Return the model that is measured when none is named: the embedded one, else the first.

    Raises:
        UnavailableError: nobody answers.
        AnswerError: the answer is no list of models, or an empty one.
    """
    answer = await _asked(endpoint, endpoint.models, streamed=False)
    if answer.status != 200:
        raise _error(endpoint, answer)
    names = _names(answer.body)
    if not names:
        raise AnswerError(f"{endpoint.url} lists no model; name one with --model")
    return DEFAULT_MODEL if DEFAULT_MODEL in names else names[0]


async def try_out(endpoint: Endpoint, requests: Iterator[bytes], *, streamed: bool) -> float:
    """Return the seconds that one request takes, which nothing else counts.

    Raises:
        UnavailableError: nobody answers.
        AnswerError: the answer is no success.
    """
    answer = await _asked(endpoint, next(requests), streamed=streamed)
    if answer.status == 404:
        listed = await _asked(endpoint, endpoint.models, streamed=False)
        raise _error(endpoint, answer, ", ".join(_names(listed.body)))
    if answer.trouble is not None:
        raise _error(endpoint, answer)
    return (answer.ended_s or answer.began_s) - answer.began_s


async def _asked(endpoint: Endpoint, request: bytes, *, streamed: bool) -> Answer:
    answer = Answer(time.perf_counter(), streamed=streamed, gaps=Histogram())
    pool = Pool(endpoint, time.perf_counter)
    try:
        async with asyncio.timeout(WITHIN_S):
            await pool.exchange(request, answer)
    except TimeoutError:
        answer.fail(trouble.SILENT, time.perf_counter())
    finally:
        pool.close()
    return answer


def _error(endpoint: Endpoint, answer: Answer, models: str = "") -> HelexaError:
    found = answer.trouble or trouble.NOT_AN_ANSWER
    if not answer.status:
        advice = _HINTS.get(found.code, "; is it up?")
        return UnavailableError(f"{endpoint.url} does not answer ({found.message}){advice}")
    advice = _HINTS.get(str(found.status), f"; it has {models}" if models else "")
    return AnswerError(f"{endpoint.url} says {found.code}: {found.message}{advice}")


def _names(body: bytes) -> list[str]:
    try:
        listed = json.loads(body)["data"]
        return [str(model["id"]) for model in listed]
    except (ValueError, LookupError, TypeError):
        return []
