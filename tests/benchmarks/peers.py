# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The servers that are measured beside Helexa, each set up as its makers advise for production."""

import asyncio
import contextlib
import os
import re
import secrets
import subprocess
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from tests.benchmarks.accounting import Naming
from tests.benchmarks.environments import debian_program, environment_of, version_of
from tests.benchmarks.programs import Address, MockBackend
from tests.benchmarks.targets import Target, program, until_right
from tests.ports import free_port

WORKERS = 2
NGINX = """\
worker_processes {workers};
daemon off;
{user}
pid nginx.pid;
error_log stderr error;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    keepalive_requests 1000000000;
    upstream backend {{
        server 127.0.0.1:{backend};
        keepalive 2048;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 32m;
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 600s;
        }}
    }}
}}
"""
LITELLM = """\
model_list:
  - model_name: mock
    litellm_params:
      model: openai/mock
      api_base: {backend}/v1
      api_key: none
general_settings:
  master_key: {key}
litellm_settings:
  telemetry: false
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a peer's programs are kept, and where it runs this time."""

    cache: Path
    folder: Path


@contextlib.asynccontextmanager
async def nginx(backend: MockBackend, place: Place) -> AsyncIterator[Target]:
    """Run nginx with two workers, connections to the backend kept open."""
    binary = debian_program("nginx", "usr/sbin/nginx", place.cache)
    port = free_port()
    user = "user root;" if os.getuid() == 0 else ""
    conf = place.folder / "nginx.conf"
    conf.write_text(NGINX.format(workers=WORKERS, user=user, backend=backend.port, port=port))
    argv = (binary, "-p", place.folder, "-c", conf)
    async with program(argv, place.folder / "nginx.log") as (pid, ended):
        version = await asyncio.to_thread(_nginx_version, binary)
        yield await _right(Target("nginx", Address((port,)), version, pid), ended)


def _nginx_version(binary: Path) -> str:
    told = subprocess.run((str(binary), "-v"), check=True, capture_output=True, text=True)
    return re.sub(r".*/", "", told.stderr.strip())


@dataclass(frozen=True, slots=True)
class Router:
    """A router from PyPI that is told its port and its workers by flags."""

    name: str
    launch: tuple[str, ...]
    quiet: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def __call__(self, backend: MockBackend, place: Place) -> AsyncIterator[Target]:
        """Run the router with its usual policy."""
        programs = await asyncio.to_thread(environment_of, self.name, place.cache)
        port = free_port()
        argv: tuple[str | Path, ...] = (
            programs / self.launch[0],
            *self.launch[1:],
            *self.quiet,
            *("--host", "127.0.0.1", "--port", str(port), "--worker-urls", backend.url),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())),
        )
        log = place.folder / f"{self.name}.log"
        async with program(argv, log, self.variables) as (pid, ended):
            version = version_of(self.name, programs)
            target = Target(self.name, Address((port,)), version, pid, _named(self.name))
            yield await _right(target, ended)


sglang_router = Router("sglang-router", ("sglang-router", "launch"), ("--log-level", "warn"))
vllm_router = Router("vllm-router", ("vllm-router",), ("--log-level", "warning"))


@contextlib.asynccontextmanager
async def litellm(backend: MockBackend, place: Place) -> AsyncIterator[Target]:
    """Run LiteLLM's proxy with two workers and one key, without a database."""
    programs = await asyncio.to_thread(environment_of, "litellm[proxy]", place.cache)
    port, key = free_port(), f"sk-{secrets.token_hex(16)}"
    config = place.folder / "litellm.yaml"
    config.write_text(LITELLM.format(backend=backend.url, key=key))
    argv = (
        *(programs / "litellm", "--config", config, "--host", "127.0.0.1", "--port", str(port)),
        *("--num_workers", str(WORKERS)),
    )
    variables = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
    }
    async with program(argv, place.folder / "litellm.log", variables) as (pid, ended):
        version = version_of("litellm", programs)
        target = Target("litellm", Address((port,), "mock", key), version, pid, _named("litellm"))
        yield await _right(target, ended)


async def _right(target: Target, ended: asyncio.Task[int]) -> Target:
    await until_right(target.address, ended)
    return target


def _named(name: str) -> Naming:
    def naming(process: psutil.Process) -> str:
        del process
        return name

    return naming
