# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""vLLM's command line, key, routes and words, against a program that knows only those."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from helexa.neuron.backends.vllm import VllmBackend
from helexa.protocol.errors import ContextLengthError, ModelFailedError
from helexa.protocol.messages.models import ModelConfig

PATIENCE_S = 30.0
# What `vllm serve` 0.33 does: the port opens late, /health needs no key, the others do.
VLLM = """#!{python}
import http.server, json, os, pathlib, sys
args, here = sys.argv[1:], pathlib.Path(__file__).parent
key = "Bearer " + os.environ["VLLM_API_KEY"]
(here / "args").write_text(json.dumps(args))
if (here / "out-of-memory").exists():
    print("INFO loading")
    raise ValueError("No available memory for the cache blocks in /opt/weights/llama")
def flag(name): return args[args.index(name) + 1]

class Handler(http.server.BaseHTTPRequestHandler):
    def reply(self, status, value, kind="application/json"):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path == "/health": return self.reply(200, b"")
        if self.headers["Authorization"] != key: return self.reply(401, {{"error": "Unauthorized"}})
        entry = {{"id": flag("--served-model-name"), "object": "model", "max_model_len": 2048}}
        self.reply(200, {{"object": "list", "data": [entry]}})
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != key: return self.reply(401, {{"error": "Unauthorized"}})
        if request["messages"] == []:
            said = "This model's maximum context length is 2048 tokens."
            return self.reply(400, {{"object": "error", "message": said,
                                     "type": "BadRequestError", "code": 400}})
        choices = [{{"delta": {{"content": "Hi"}}}}]
        chunk = json.dumps({{"model": request["model"], "choices": choices}})
        self.reply(200, f"data: {{chunk}}\\n\\ndata: [DONE]\\n\\n".encode(), "text/event-stream")

http.server.ThreadingHTTPServer((flag("--host"), int(flag("--port"))), Handler).serve_forever()
"""

Make = Callable[..., VllmBackend]


@pytest.fixture
async def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    """Make a backend of a host whose PATH has a `vllm`."""
    program = tmp_path / "vllm"
    program.write_text(VLLM.format(python=sys.executable))
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    made: list[VllmBackend] = []

    def build(**options: object) -> VllmBackend:
        config = {"model": "org/m", "backend_kind": "vllm", "source": "hf:org/repo", **options}
        backend = VllmBackend(ModelConfig.model_validate(config))
        made.append(backend)
        return backend

    yield build
    for backend in made:
        await backend.stop(5)


async def start(backend: VllmBackend) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await backend.start(lambda _share: None)


@pytest.mark.accepts("PORT-3")
async def test_vllm_is_started_and_asked_as_it_expects(make: Make, tmp_path: Path) -> None:
    backend = make(context_tokens=1024, slots=8, args=("--tensor-parallel-size", "2"))
    await start(backend)
    args = json.loads((tmp_path / "args").read_text())
    port = args[args.index("--port") + 1]

    assert args == [
        *("serve", "org/repo", "--host", "127.0.0.1", "--port", port),
        *("--served-model-name", "org/m", "--max-num-seqs", "8", "--max-model-len", "1024"),
        *("--tensor-parallel-size", "2"),
    ]
    stream = await backend.chat(b'{"model": "org/m", "messages": [{}], "stream": true}')
    events = [json.loads(event) async for batch in stream for event in batch]
    assert events == [{"model": "org/m", "choices": [{"delta": {"content": "Hi"}}]}]
    with pytest.raises(ContextLengthError, match="2048 tokens"):
        await backend.chat(b'{"model": "org/m", "messages": []}')
    await backend.probe()


async def test_its_context_is_read_from_what_it_lists(make: Make) -> None:
    backend = make()
    await start(backend)

    assert backend.capability.max_context_tokens == 2048
    assert backend.slots == 32
    assert backend.capability.continues_partial


@pytest.mark.parametrize(
    ("source", "weights"),
    [
        ("hf:org/repo/model.safetensors@main", "org/repo"),
        ("org/repo", "org/repo"),
        ("/srv/models/x", "/srv/models/x"),
    ],
)
async def test_weights_are_named_as_vllm_names_them(
    make: Make, tmp_path: Path, source: str, weights: str
) -> None:
    await start(make(source=source))

    assert json.loads((tmp_path / "args").read_text())[1] == weights


async def test_its_own_reason_for_a_failure_is_told(make: Make, tmp_path: Path) -> None:
    (tmp_path / "out-of-memory").touch()

    with pytest.raises(ModelFailedError) as failure:
        await start(make())
    reason = "the runtime ended with code 1: No available memory for the cache blocks in llama"
    assert failure.value.message == reason


async def test_a_host_without_vllm_says_so(make: Make, tmp_path: Path) -> None:
    (tmp_path / "vllm").unlink()

    with pytest.raises(ModelFailedError, match="vllm is not installed on this host"):
        await start(make())


async def test_a_model_without_weights_is_refused(make: Make) -> None:
    with pytest.raises(ModelFailedError, match="names no source"):
        await start(make(source=None))
