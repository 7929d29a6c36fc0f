# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A site under `docker compose up`, with a project name, ports and volumes of its own."""

import asyncio
import contextlib
import json
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from testcontainers.compose import DockerCompose
from tests.ports import free_port

from helexa.process.settings import current_environment
from helexa.protocol.naming import random_id

ROOT = Path(__file__).parents[3]
REQUIRED = "HELEXA_REQUIRE_ENGINE"
"""Where this variable is set, a missing engine is a failure."""
WITHIN_S = 90.0
LOOK_S = 0.25


def require_engine() -> None:
    """Skip the test where no engine with Compose answers, and say why."""
    reason = _missing()
    if reason is None:
        return
    if current_environment().get(REQUIRED):
        pytest.fail(f"{REQUIRED} is set, and {reason}")
    pytest.skip(reason)


def _missing() -> str | None:
    for words in (["docker", "version"], ["docker", "compose", "version"]):
        try:
            asked = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"there is no container engine here: {error}"
        if asked.returncode:
            return f"'{' '.join(words)}' says: {asked.stderr.strip()}"
    return None


def run(*words: str) -> str:
    """Return what a command prints.

    Raises:
        AssertionError: it fails.
    """
    # Compose prefers variables to the file that a test gives it.
    kept = {
        name: value
        for name, value in current_environment().items()
        if not name.startswith(("HELEXA_", "COMPOSE_"))
    }
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=WITHIN_S, check=False, env=kept
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass
class Stack:
    """A running project."""

    compose: DockerCompose
    project: str
    port: int
    portal_port: int
    nats_port: int
    given_key: str = ""
    """The API key, where it is no longer the one of the first start."""
    volumes: set[str] = field(default_factory=set)
    """Volumes of containers that may be gone by the end; scaling leaves those without a name."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __call__(self, *words: str) -> str:
        """Run one of Compose's commands."""
        return run(*self.compose.compose_command_property, *words)

    def containers(self, service: str) -> list[str]:
        """Return the names of a service's running containers."""
        return self("ps", "--format", "{{.Name}}", service).split()

    def inspect(self, container: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(run("docker", "inspect", container))
        return found[0]

    def sh(self, container: str, script: str) -> str:
        return run("docker", "exec", container, "sh", "-c", script)

    def cli(self, *words: str) -> str:
        """Return what one of the operator's commands prints."""
        return self("run", "--rm", "--no-deps", "cli", *words).strip()

    def renew(self, key: str) -> str:
        """Return what the init step prints when it makes a key anew."""
        command = self.compose.compose_command_property
        return run("env", f"HELEXA_RENEW={key}", *command, "run", "--rm", "--no-deps", "init")

    async def says(self, service: str, text: str) -> None:
        """Return when a container of the service has said so."""
        async with asyncio.timeout(WITHIN_S):
            while text not in await asyncio.to_thread(self, "logs", service):
                await asyncio.sleep(LOOK_S)

    @property
    def key(self) -> str:
        """The API key, as the first start prints it."""
        if self.given_key:
            return self.given_key
        (line,) = [each for each in self("logs", "init").splitlines() if "API key" in each]
        return line.split()[-1]

    def client(self, timeout_s: float = WITHIN_S) -> AsyncOpenAI:
        """Return a client that tries once, as it comes: what fails, fails the test."""
        return AsyncOpenAI(
            base_url=self.url,
            api_key=self.key,
            max_retries=0,
            timeout=timeout_s,
            http_client=DefaultAsyncHttpxClient(timeout=timeout_s),
        )

    async def scale(self, **counts: int) -> None:
        """Have so many containers of each service, and return when all are healthy."""
        await asyncio.to_thread(self.note_volumes)
        words = [f"{service}={count}" for service, count in counts.items()]
        await asyncio.to_thread(self, "scale", "--no-deps", *words)
        async with asyncio.timeout(WITHIN_S):
            while not all(
                [await asyncio.to_thread(self._are_healthy, *each) for each in counts.items()]
            ):
                await asyncio.sleep(LOOK_S)

    def note_volumes(self) -> None:
        """Remember which volumes the containers have that there are now."""
        for container in run("docker", "ps", "-aq", "--filter", _label(self.project)).split():
            mounts = self.inspect(container)["Mounts"]
            self.volumes |= {mount["Name"] for mount in mounts if mount["Type"] == "volume"}

    def _are_healthy(self, service: str, count: int) -> bool:
        health = self("ps", "--format", "{{.Health}}", service).split()
        return health == ["healthy"] * count

    def told(self) -> str:
        """Return the end of what each container says, for the report of a failure."""
        with contextlib.suppress(AssertionError):
            return self("ps", "--all") + self("logs", "--tail", "25", "--no-color")
        return "its logs cannot be read"


@contextlib.contextmanager
def stack_up(directory: Path, *overrides: str) -> Iterator[Stack]:
    """Build and start a site, and take it away afterwards with its volumes and images."""
    require_engine()
    project = f"helexa-test-{random_id(40)}"
    ports = (free_port(), free_port(), free_port())
    stack = Stack(_compose(directory, project, ports, overrides), project, *ports)
    try:
        with contextlib.ExitStack() as cleaning:
            cleaning.callback(_take_away, stack)
            try:
                stack("up", "--detach", "--build", "--wait", "--wait-timeout", "200")
            except AssertionError as error:
                raise AssertionError(f"{error}\n{stack.told()}") from error
            yield stack
    finally:
        left = run("docker", "ps", "-aq", "--filter", _label(project))
        assert not left, "containers were left behind"


def with_files(stack: Stack, directory: Path, *overrides: str) -> Stack:
    """Return the same project as more files describe it."""
    ports = (stack.port, stack.portal_port, stack.nats_port)
    return Stack(_compose(directory, stack.project, ports, overrides), stack.project, *ports)


@contextlib.contextmanager
def neuron_elsewhere(stack: Stack, token: str) -> Iterator[str]:
    """Run a neuron that reaches nothing of the site but the port that this machine publishes."""
    name = f"{stack.project}-elsewhere"
    run("docker", "network", "create", name)
    try:
        run(
            *("docker", "run", "--detach", "--name", name, "--network", name),
            *("--add-host", "host.docker.internal:host-gateway"),
            *("--read-only", "--cap-drop", "ALL", "--volume", "/var/lib/helexa"),
            *("--env", f"HELEXA_NEURON_JOIN_TOKEN={token}"),
            *(f"{stack.project}-neuron", "neuron"),
        )
        yield name
    finally:
        run("docker", "rm", "--force", "--volumes", name)
        run("docker", "network", "rm", name)


def _compose(
    directory: Path, project: str, ports: Sequence[int], overrides: Sequence[str]
) -> DockerCompose:
    variables = directory / "compose.env"
    variables.write_text(
        f"COMPOSE_PROJECT_NAME={project}\n"
        f"HELEXA_PORT={ports[0]}\nHELEXA_PORTAL_PORT={ports[1]}\n"
        f"HELEXA_NATS_PORT={ports[2]}\nHELEXA_NATS_BIND=0.0.0.0\n"
    )
    files = [str(ROOT / name) for name in ("compose.yaml", *overrides)]
    return DockerCompose(ROOT, compose_file_name=files, env_file=str(variables))


def _take_away(stack: Stack) -> None:
    """Remove all of the project, also what only an override named and what scaling left."""
    stack.note_volumes()
    stack("down", "--volumes", "--rmi", "local", "--remove-orphans", "--timeout", "2")
    for network in run("docker", "network", "ls", "-q", "--filter", _label(stack.project)).split():
        run("docker", "network", "rm", network)
    for volume in stack.volumes & set(run("docker", "volume", "ls", "-q").split()):
        run("docker", "volume", "rm", volume)


def _label(project: str) -> str:
    return f"label=com.docker.compose.project={project}"


@dataclass
class Load:
    """Chats that go on until they are told to end, and what became of them."""

    client: AsyncOpenAI
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    _ending: asyncio.Event = field(default_factory=asyncio.Event)

    @contextlib.asynccontextmanager
    async def running(self, workers: int) -> AsyncIterator[Self]:
        """Keep `workers` requests in flight inside the block; half of them are streams."""
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(self._work(is_stream=number % 2 == 0))
            try:
                yield self
            finally:
                self._ending.set()

    async def at_least(self, more: int) -> None:
        """Return when `more` chats have been answered from now on."""
        wanted = self.answered + more
        async with asyncio.timeout(WITHIN_S):
            while self.answered < wanted:
                await asyncio.sleep(LOOK_S)

    def row(self, case: str) -> dict[str, object]:
        """Return what the table of faults says of this load."""
        hung = sum("Timeout" in failure for failure in self.failures)
        return {
            "case": case,
            "requests": self.answered + len(self.failures),
            "answers": self.answered,
            "clear errors": len(self.failures) - hung,
            "hung": hung,
        }

    async def _work(self, *, is_stream: bool) -> None:
        while not self._ending.is_set():
            began = time.monotonic()
            try:
                text = await chat(self.client, is_stream=is_stream)
            except Exception as error:  # noqa: BLE001 - whatever it is, the client sees it
                self.failures.append(f"after {time.monotonic() - began:.2f} s: {error!r}")
                continue
            if text != ANSWER:
                self.failures.append(f"wrong answer: {text!r}")
            self.answered += 1


QUESTION = "What is the capital of Norway?"
ANSWER = "The capital of Norway is Oslo."


async def chat(client: AsyncOpenAI, *, is_stream: bool = False) -> str:
    """Return the answer to the question that the embedded model knows."""
    messages: Any = [{"role": "user", "content": QUESTION}]
    if not is_stream:
        made = await client.chat.completions.create(
            model="helexa-tiny", messages=messages, temperature=0
        )
        return made.choices[0].message.content or ""
    stream = await client.chat.completions.create(
        model="helexa-tiny", messages=messages, temperature=0, stream=True
    )
    text, ended = "", False
    async for chunk in stream:
        text += chunk.choices[0].delta.content or "" if chunk.choices else ""
        ended = ended or bool(chunk.choices and chunk.choices[0].finish_reason)
    assert ended, f"the stream ended early: {text!r}"
    return text
