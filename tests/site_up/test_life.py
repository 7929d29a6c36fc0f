# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A site from start to end, and through the death of its parts."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from openai import AsyncOpenAI
from tests.site_up.site import MODEL, RunningSite, site_up

LONG = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Tell me a story."}],
    "temperature": 0,
    "stream": True,
    "max_tokens": 600,
    "logit_bias": {"2": -100},
}
"""A stream of exactly 600 tokens: the end mark is never chosen."""


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=5)
    return alive == []


@pytest.mark.accepts("CX-27", "NR-8", "LAB-4")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_everything_within_ten_seconds(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with site_up(tmp_path / "data") as site:
        everything = psutil.Process(site.process.pid).children(recursive=True)
        assert {"nats-server"} <= {process.name() for process in everything}
        assert await site.stop(number) == 0
        assert gone(everything)


async def test_a_killed_parent_leaves_no_process(tmp_path: Path) -> None:
    async with site_up(tmp_path / "data") as site:
        everything = psutil.Process(site.process.pid).children(recursive=True)
        site.process.kill()
        await site.process.wait()
        assert gone(everything)


async def test_a_second_site_on_one_data_directory_says_whose_it_is(tmp_path: Path) -> None:
    async with site_up(tmp_path / "data") as site:
        second = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "helexa.cli", "up", "--data-dir", str(site.data)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert second.returncode != 0
        assert len(second.stderr.strip().splitlines()) == 1
        assert str(site.process.pid) in second.stderr


@pytest.mark.accepts("PORT-7")
async def test_a_stream_goes_on_when_its_only_backend_is_back(tmp_path: Path) -> None:
    async with site_up(tmp_path / "data") as site, httpx.AsyncClient(timeout=60) as http:
        async with http.stream("POST", f"{site.base_url}/chat/completions", json=LONG) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            for backend in site.processes("helexa.neuron.backends.llama_child"):
                backend.kill()
            rest = [line async for line in lines if line.startswith("data: ")]
        assert rest.index("data: [DONE]") == len(rest) - 1
        finish = json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"]
        assert finish in ("stop", "length")
        await until_answered(site)


@pytest.mark.accepts("NET-3")
async def test_a_site_serves_again_after_its_nats_server_was_killed(tmp_path: Path) -> None:
    async with site_up(tmp_path / "data") as site:
        for server in site.processes("nats-server"):
            server.kill()
        await until_answered(site)


@pytest.mark.accepts("LAB-4")
@pytest.mark.parametrize("service", ["gateway", "scheduler", "provisioner", "neuron"])
async def test_a_killed_service_is_started_again(tmp_path: Path, service: str) -> None:
    async with site_up(tmp_path / "data") as site:
        killed = site.processes("helexa.cli", service)
        assert killed
        for process in killed:
            process.kill()
        await asyncio.to_thread(gone, killed)
        await until_answered(site)


async def until_answered(site: RunningSite) -> None:
    """Return when a chat is answered; clients repeat what is refused as 502, 503 or not at all."""
    async with AsyncOpenAI(base_url=site.base_url, api_key="none", max_retries=20) as client:
        answer = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "What is the capital of Norway?"}],
            temperature=0,
        )
        assert answer.choices[0].message.content == "The capital of Norway is Oslo."
