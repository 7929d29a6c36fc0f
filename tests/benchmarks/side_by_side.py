# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Time to first token and tokens a second: the backend asked directly, and through a whole site.

Run from the project's root: ``python -m tests.benchmarks.side_by_side``. It starts a llama.cpp
child and a site of its own with the same model, asks both in turn, and prints medians. Bounded:
about one minute with the defaults.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from tests.site_up.site import MODEL, READY, free_port

from helexa.neuron.tiny.files import model_path, projector_path

PROMPT = "Count to 100."


@dataclass(frozen=True, slots=True)
class Target:
    """Something that answers chats."""

    name: str
    base_url: str
    key: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One streamed answer."""

    first_token_s: float
    total_s: float
    tokens: int


async def stream_once(target: Target, max_tokens: int) -> Sample:
    """Stream one chat and time it."""
    url = urlsplit(target.base_url)
    body = json.dumps(
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": PROMPT}],
            "stream": True,
            "max_tokens": max_tokens,
            "temperature": 0,
        }
    )
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    request = (
        "POST /v1/chat/completions HTTP/1.1\r\n"
        f"Host: {url.netloc}\r\nAuthorization: Bearer {target.key}\r\n"
        "Content-Type: application/json\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    )
    began = time.perf_counter()
    writer.write(request.encode())
    first: float | None = None
    tokens = 0
    async for line in reader:
        if b'"content":"' in line:
            first = first or time.perf_counter()
            tokens += 1
    writer.close()
    ended = time.perf_counter()
    if first is None:
        raise RuntimeError(f"{target.name} sent no tokens")
    return Sample(first - began, ended - began, tokens)


@contextlib.asynccontextmanager
async def direct() -> AsyncIterator[Target]:
    """Run the embedded model's backend alone."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "helexa.neuron.backends.llama_child", "--alias", MODEL),
        *("--model", str(model_path()), "--mmproj", str(projector_path())),
        *("--host", "127.0.0.1", "--port", "0", "--parallel", "8", "--ctx-size", "16384"),
        *("--threads", "1"),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        if process.stderr is None:
            raise RuntimeError("no output to read")
        async for line in process.stderr:
            if line.startswith(b"serving on "):
                yield Target("direct", line.split()[-1].decode(), "")
                break
    finally:
        process.terminate()
        await process.wait()


@contextlib.asynccontextmanager
async def whole_site(folder: Path) -> AsyncIterator[tuple[Target, psutil.Process]]:
    """Run `helexa up` and yield its gateway."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "helexa.cli", "up", "--data-dir", str(folder)),
        *("--gateway-socket", f"127.0.0.1:{free_port()}"),
        *("--orchestrator-socket", f"127.0.0.1:{free_port()}"),
        *("--portal-socket", f"127.0.0.1:{free_port()}"),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        if process.stdout is None:
            raise RuntimeError("no output to read")
        async for line in process.stdout:
            if line.startswith(READY):
                break
        site = json.loads((folder / "site.json").read_text())
        yield Target("through Helexa", site["gateway_url"], ""), psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 15)


async def measure(target: Target, concurrency: int, max_tokens: int) -> list[Sample]:
    """Return one sample for each of `concurrency` simultaneous streams."""
    began = [stream_once(target, max_tokens) for _ in range(concurrency)]
    return await asyncio.gather(*began)


def show(name: str, concurrency: int, runs: list[list[Sample]]) -> None:
    """Print the medians of one row with their ranges."""
    first = [statistics.median(sample.first_token_s for sample in run) * 1000 for run in runs]
    rate = [
        sum(sample.tokens for sample in run) / max(sample.total_s for sample in run) for run in runs
    ]
    print(
        f"| {name} | {concurrency} | {statistics.median(first):.1f} "
        f"({min(first):.1f}-{max(first):.1f}) | {statistics.median(rate):.0f} "
        f"({min(rate):.0f}-{max(rate):.0f}) |"
    )


def show_memory(parent: psutil.Process) -> None:
    """Print the resident memory of each process of the site."""
    print("\n| process | memory |\n|---|---|")
    for process in [parent, *parent.children(recursive=True)]:
        command = [Path(part).name for part in process.cmdline()[:6]]
        print(f"| {' '.join(command)} | {process.memory_info().rss / 1e6:.0f} MB |")


async def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        async with direct() as backend, whole_site(Path(folder)) as (site, process):
            print("| target | streams | first token, ms | tokens/s |\n|---|---|---|---|")
            for concurrency in options.concurrency:
                runs: dict[str, list[list[Sample]]] = {backend.name: [], site.name: []}
                for _ in range(options.repetitions):
                    for target in (backend, site):
                        runs[target.name].append(
                            await measure(target, concurrency, options.max_tokens)
                        )
                for name, samples in runs.items():
                    show(name, concurrency, samples)
            show_memory(process)


if __name__ == "__main__":
    asyncio.run(main())
