# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Which backend a configuration gets, and programs that are known by configuration alone."""

import asyncio
import sys
from pathlib import Path

import pytest

from helexa.neuron.backends.command import CommandBackend
from helexa.neuron.backends.kinds import BACKEND_KINDS, make_backend
from helexa.neuron.backends.llama_cpp import LlamaCppBackend
from helexa.neuron.backends.openai_proxy import OpenAiProxyBackend
from helexa.neuron.backends.vllm import VllmBackend
from helexa.protocol.errors import ModelFailedError, UnsupportedError
from helexa.protocol.messages.models import ModelConfig

PATIENCE_S = 30.0
# Answers on one path only, and tells what it was started with there.
PROGRAM = """
import http.server, os, sys
host, port, ready, *words = sys.argv[1:]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = " ".join([os.environ["COLOUR"], *words]).encode()
        self.send_response(200 if self.path == ready else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer((host, int(port)), Handler).serve_forever()
"""


def config(kind: str = "command", **more: object) -> ModelConfig:
    return ModelConfig.model_validate({"model": "m/x", "backend_kind": kind} | more)


def program(ready: str, *words: str) -> tuple[str, ...]:
    return (sys.executable, "-c", PROGRAM, "${HOST}", "${PORT}", ready, *words)


def test_each_kind_has_its_backend() -> None:
    classes = (LlamaCppBackend, VllmBackend, OpenAiProxyBackend, CommandBackend)
    made = [make_backend(config(kind), model_path=Path("/x")) for kind in BACKEND_KINDS]

    assert [type(backend) for backend in made] == list(classes)


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnsupportedError, match=r"'tgi'; known are llama_cpp, vllm, "):
        make_backend(config("tgi"))


def test_a_kind_that_reads_a_file_needs_one() -> None:
    with pytest.raises(ModelFailedError, match="needs the file"):
        make_backend(config("llama_cpp"))


@pytest.mark.accepts("PORT-4")
@pytest.mark.parametrize(
    ("ready", "metadata"),
    [("/health", {}), ("/v1/models", {}), ("/ready", {"health_path": "/ready"})],
)
async def test_any_program_is_run_by_configuration_alone(
    ready: str, metadata: dict[str, str]
) -> None:
    words = ("${MODEL}", "${MODEL_PATH}", "$HOME", "${OTHER}", "$${MODEL}")
    env = {"COLOUR": "blue-${MODEL}"}
    made = config(command=program(ready, *words[:2]), args=words[2:], env=env, metadata=metadata)
    backend = CommandBackend(made, model_path=Path("/srv/w"))
    async with asyncio.timeout(PATIENCE_S):
        await backend.start(lambda _share: None)
    _, body = await backend.connected().fetch(ready)
    await backend.probe()
    await backend.stop(5)

    assert body.decode() == "blue-m/x m/x /srv/w $HOME ${OTHER} $m/x"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({}, "names no command"),
        ({"command": ("x",), "metadata": {"health_path": "ready"}}, "is not a path"),
        ({"command": ("/no/such/program",)}, "program is not installed"),
        ({"command": ("/bin/true",), "listen_endpoint": "nowhere"}, "listen_endpoint is wrong"),
        ({"command": ("/bin/sh", "-c", "echo out of luck; exit 9")}, "code 9: out of luck"),
    ],
)
async def test_what_is_wrong_with_a_configuration_is_told(
    wrong: dict[str, object], words: str
) -> None:
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(ModelFailedError, match=words):
            await CommandBackend(config("command", **wrong)).start(lambda _share: None)
