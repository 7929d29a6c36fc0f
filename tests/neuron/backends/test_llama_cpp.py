# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""llama.cpp with the default model: how it is started, why it fails, what it measures."""

import asyncio
import json
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest

from helexa.neuron.backends.limits import RuntimeLimits
from helexa.neuron.backends.llama_cpp import LlamaCppBackend, check_processor
from helexa.neuron.backends.place import Place
from helexa.neuron.backends.ports import free_port
from helexa.neuron.tiny import files
from helexa.protocol.errors import ModelFailedError, UnsupportedError
from helexa.protocol.messages.models import ModelCapability, ModelConfig, Workload

PATIENCE_S = 30.0
CHILD = ("-P", "-m", "helexa.neuron.backends.llama_child")
PLACE = Place("127.0.0.1", 4711, "k", Path("/nowhere/key"))
MODEL = files.model_path()

Make = Callable[..., LlamaCppBackend]
Chat = Callable[..., bytes]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Make a backend; keyword arguments are of its configuration unless the backend takes them."""
    made: list[LlamaCppBackend] = []

    def build(path: Path = MODEL, **options: object) -> LlamaCppBackend:
        own = {name: options.pop(name) for name in ("limits", "choose_port") if name in options}
        projector = options.pop("projector_path", None)
        config = {"model": "m", "backend_kind": "llama_cpp", "slots": 2, **options}
        backend = LlamaCppBackend(
            ModelConfig.model_validate(config),
            model_path=path,
            projector_path=projector if isinstance(projector, Path) else None,
            **own,  # type: ignore[arg-type]
        )
        made.append(backend)
        return backend

    yield build
    for backend in made:
        await backend.stop(5)


async def start(backend: LlamaCppBackend) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await backend.start(lambda _share: None)


async def refusal(backend: LlamaCppBackend) -> str:
    with pytest.raises(ModelFailedError) as failure:
        await start(backend)
    assert not backend.died.is_set()
    return failure.value.message


def changed(folder: Path, change: Callable[[bytes], bytes], source: Path = MODEL) -> Path:
    path = folder / "changed.gguf"
    path.write_bytes(change(source.read_bytes()))
    return path


async def test_progress_goes_from_nothing_to_everything(make: Make) -> None:
    shares: list[float] = []
    await make().start(shares.append)

    assert shares[0] == 0.0
    assert shares[-1] == 1.0
    assert shares == sorted(shares)


async def test_what_the_model_can_do_is_read_from_the_running_server(make: Make) -> None:
    plain, omni = make(), make(projector_path=files.projector_path(), context_tokens=1024)
    await asyncio.gather(start(plain), start(omni))

    text = (Workload.CHAT, Workload.COMPLETION, Workload.EMBEDDING)
    assert plain.capability == ModelCapability(
        workloads=text, max_context_tokens=4096, continues_partial=True
    )
    assert omni.capability.workloads == (*text, Workload.VISION, Workload.AUDIO)
    assert omni.capability.max_context_tokens == 1024


@pytest.mark.accepts("RT-4")
async def test_an_image_for_a_model_without_a_projector_is_refused(make: Make, chat: Chat) -> None:
    backend = make()
    await start(backend)
    url = "data:image/png;base64,iVBORw0KGgo="

    with pytest.raises(UnsupportedError, match="image"):
        await backend.chat(chat([{"type": "image_url", "image_url": {"url": url}}]))


async def test_an_answer_goes_on_from_where_it_was_cut(make: Make) -> None:
    backend = make()
    await start(backend)
    body = (
        b'{"temperature": 0, "stream": true, "messages": ['
        b'{"role": "user", "content": "What is the capital of Norway?"},'
        b'{"role": "assistant", "content": "The capital of Norway is"}]}'
    )
    events = b"".join([event async for batch in await backend.chat(body) for event in batch])

    assert b'" O"' in events
    assert b'"Norway"' not in events


async def test_closing_a_stream_stops_the_generation_within_a_second(
    make: Make, chat: Chat
) -> None:
    backend = make()
    await start(backend)
    stream = await backend.chat(chat("Hello!", logit_bias={"2": -100}, max_tokens=4000))
    await anext(aiter(stream))
    await stream.aclose()

    async with asyncio.timeout(1.0):
        while (await metrics(backend))["requests_processing"]:
            await asyncio.sleep(0.01)
    assert (await metrics(backend))["tokens_predicted_total"] < 4000


async def metrics(backend: LlamaCppBackend) -> dict[str, float]:
    _, body = await backend.connected().fetch("/metrics")
    lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
    pairs = [line.removeprefix("llamacpp:").split() for line in lines]
    return {name: float(value) for name, value in pairs}


async def test_only_who_knows_the_key_of_this_start_is_served(make: Make) -> None:
    port = free_port()
    backend = make(listen_endpoint=f"http://127.0.0.1:{port}")
    await start(backend)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()

    assert b" 401 " in answer.splitlines()[0]


async def test_no_key_is_left_behind_and_none_is_an_argument(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    await start(make())

    assert list(tmp_path.iterdir()) == []
    words = [word for each in psutil.Process().children(recursive=True) for word in each.cmdline()]
    assert "--api-key-file" in words
    assert "--api-key" not in words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data[:500_000], r"ended with code 3: .*model is corrupted or incomplete"),
        (lambda data: b"NOTG" + data[4:], "is not a GGUF file"),
        (lambda _: b"", "is not a GGUF file"),
        (lambda data: data[:100], "header .* is damaged"),
        (lambda data: data[:200] + b"\xff" * 1000 + data[1200:], "header .* is damaged"),
    ],
)
async def test_a_damaged_model_fails_with_the_runtimes_reason(
    make: Make, tmp_path: Path, change: Callable[[bytes], bytes], words: str
) -> None:
    with pytest.raises(ModelFailedError, match=words):
        await start(make(changed(tmp_path, change)))


async def test_a_missing_file_is_named_without_its_folder(make: Make, tmp_path: Path) -> None:
    assert await refusal(make(tmp_path / "x.gguf")) == "the model's file x.gguf is missing"
    backend = make(projector_path=tmp_path / "p.gguf")
    assert await refusal(backend) == "the projector's file p.gguf is missing"


async def test_a_projector_that_is_none_is_named_without_its_folder(make: Make) -> None:
    message = await refusal(make(projector_path=MODEL))

    assert message.endswith("Failed to load CLIP model from helexa-tiny.gguf")


async def test_a_projector_that_breaks_off_fails_cleanly(make: Make, tmp_path: Path) -> None:
    projector = changed(tmp_path, lambda data: data[:900_000], files.projector_path())

    assert "changed.gguf" in await refusal(make(projector_path=projector))


async def test_a_flag_that_the_runtime_does_not_know_is_named(make: Make) -> None:
    message = await refusal(make(args=("--no-such-flag",)))

    assert message == "the runtime ended with code 2: unrecognized arguments: --no-such-flag"


async def test_a_program_that_is_not_installed_is_named(make: Make) -> None:
    message = await refusal(make(command=("/opt/nowhere/my-llama",)))

    assert message == "my-llama is not installed on this host"


async def test_a_model_that_loads_for_ever_is_given_up_and_ended(make: Make) -> None:
    before = set(psutil.Process().children(recursive=True))
    idle = (sys.executable, "-S", "-c", "import time; time.sleep(600)")
    message = await refusal(make(command=idle, limits=RuntimeLimits(load_timeout_s=0.2)))

    assert message == "the model was not ready after 0.2 s"
    assert set(psutil.Process().children(recursive=True)) == before


async def test_stopping_while_it_loads_ends_the_start(make: Make) -> None:
    say = "import time; print(1, flush=True); time.sleep(600)"
    backend = make(command=(sys.executable, "-S", "-c", say))
    starting = asyncio.create_task(backend.start(lambda _share: None))
    async with asyncio.timeout(PATIENCE_S):
        while not backend.last_words():
            await asyncio.sleep(0.01)
    await backend.stop(5)

    with pytest.raises(ModelFailedError, match="stopped while it was loading"):
        await starting
    assert not backend.died.is_set()


async def test_a_cancelled_start_leaves_nothing(make: Make) -> None:
    before = set(psutil.Process().children(recursive=True))
    backend = make(command=(sys.executable, "-S", "-c", "import time; time.sleep(600)"))
    starting = asyncio.create_task(backend.start(lambda _share: None))
    async with asyncio.timeout(PATIENCE_S):
        while set(psutil.Process().children(recursive=True)) == before:
            await asyncio.sleep(0.01)
    starting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await starting
    assert set(psutil.Process().children(recursive=True)) == before


async def test_another_port_is_taken_where_one_is_lost(make: Make, taken: int) -> None:
    ports = iter([taken, taken, free_port()])
    backend = make(choose_port=lambda: next(ports))
    await start(backend)

    await backend.probe()
    assert list(ports) == []


async def test_ports_are_not_tried_for_ever(make: Make, taken: int) -> None:
    tries: list[int] = []

    def lost() -> int:
        tries.append(taken)
        return taken

    assert "couldn't bind" in await refusal(make(choose_port=lost))
    assert len(tries) == 3


async def test_a_fixed_port_that_is_taken_is_named(make: Make, taken: int) -> None:
    message = await refusal(make(listen_endpoint=f"http://127.0.0.1:{taken}"))

    assert message == f"port {taken} is taken by another program"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which something listens that is not ours and answers nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


async def flags(backend: LlamaCppBackend) -> list[str]:
    await backend.check()
    return list(backend.command(PLACE))


def after(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


async def test_the_context_given_is_that_of_all_slots(make: Make) -> None:
    words = await flags(make(slots=3, context_tokens=1000))
    assert (after(words, "-c"), after(words, "-np")) == ("3000", "3")

    trained = await flags(make(slots=4))
    assert after(trained, "-c") == str(4 * 4096)


async def test_a_small_model_gets_one_thread_and_a_large_one_the_cores(
    make: Make, tmp_path: Path
) -> None:
    large = changed(tmp_path, lambda data: data)
    with large.open("r+b") as file:
        file.truncate(65 << 20)
    limits = RuntimeLimits(threads=6)

    assert after(await flags(make(limits=limits)), "-t") == "1"
    words = await flags(make(large, limits=limits))
    assert after(words, "-t") == "6"
    assert "--embeddings" not in words


async def test_a_large_model_embeds_where_its_configuration_says_so(
    make: Make, tmp_path: Path
) -> None:
    large = changed(tmp_path, lambda data: data)
    with large.open("r+b") as file:
        file.truncate(65 << 20)
    words = await flags(make(large, capability={"workloads": ["chat", "embedding"]}))

    assert after(words, "--pooling") == "mean"
    assert "-ub" not in words


@pytest.mark.parametrize("slots", [3, 12])
async def test_a_model_takes_any_number_of_slots(make: Make, slots: int) -> None:
    backend = make(slots=slots, context_tokens=512)
    await start(backend)

    assert json.loads(await backend.embed(b'{"input": "hello"}'))["data"]


async def test_a_program_of_the_host_gets_the_same_flags(make: Make) -> None:
    ours = await flags(make())
    words = await flags(make(command=("/opt/llama-server", "--verbose")))

    assert ours[:4] == [sys.executable, *CHILD]
    assert words[:2] == ["/opt/llama-server", "--verbose"]
    assert words[2:] == ours[4:]


def test_a_processor_without_avx2_is_refused_before_it_kills_the_runtime() -> None:
    check_processor("x86_64", "flags : fpu sse avx avx2 fma")
    check_processor("aarch64", "Features : fp asimd")
    check_processor("x86_64", "")

    with pytest.raises(ModelFailedError, match="AVX2"):
        check_processor("x86_64", "flags : fpu sse avx")


async def test_a_missing_system_library_is_told_in_one_sentence(make: Make, tmp_path: Path) -> None:
    stand_in = tmp_path / "xllamacpp.py"
    stand_in.write_text("raise ImportError('libgomp.so.1: cannot open shared object file')\n")
    child = (sys.executable, "-m", "helexa.neuron.backends.llama_child")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    message = await refusal(make(command=child, env={"PYTHONPATH": path}))

    assert message.endswith("libgomp.so.1 is missing; install the package libgomp1")


async def test_concurrent_streams_all_end_well(make: Make, chat: Chat) -> None:
    backend = make(slots=4)
    await start(backend)

    async def answer() -> bytes:
        stream = await backend.chat(chat("Thank you!"))
        return b"".join([event async for batch in stream for event in batch])

    answers = await asyncio.gather(*(answer() for _ in range(16)))
    assert all(b"welcome" in each for each in answers)
