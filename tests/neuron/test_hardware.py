# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The hardware of a host, against a fake NVML library in a child process and real /proc trees."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypedDict

import psutil
import pytest

from helexa.neuron.hardware import Hardware, HardwareMonitor, Limits, read_limits

HERE = Path(__file__).parent
GPU_IS_LOST, DRIVER_NOT_LOADED, NOT_SUPPORTED, UNKNOWN = 15, 9, 3, 999
GIB = 1 << 30

Value = str | int | float | None


class Answer(TypedDict):
    gpus: list[dict[str, Value]]
    connected: bool
    events: list[str]


class Probe:
    """A child process that reads the cards whenever it is asked."""

    def __init__(self, library: Path, state: Path) -> None:
        self._state = state
        self.set()
        # `env` adds to the environment that the child inherits, without this process reading it.
        self.process = subprocess.Popen(
            [
                "env",
                f"LD_LIBRARY_PATH={library}",
                f"FAKE_NVML={state}",
                sys.executable,
                str(HERE / "gpu_probe.py"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def set(self, **values: int) -> None:
        """Replaces the whole state; gpu0_temp is written gpu0.temp."""
        lines = [f"{_key(name)} {value}\n" for name, value in values.items()]
        self._state.write_text("".join(lines))

    def ask(self, command: str = "read") -> Answer:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        answer: Answer = json.loads(self.process.stdout.readline())
        return answer

    def stop(self) -> None:
        with self.process:
            assert self.process.stdin is not None
            self.process.stdin.close()
            assert self.process.wait(timeout=20) == 0


def _key(name: str) -> str:
    card, _, rest = name.partition("_")
    return f"{card}.{rest}" if card.startswith("gpu") else name


Build = Callable[..., Path]
Start = Callable[[Path], Probe]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Builds the fake library, without the functions named, and returns its directory."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler on this host to build the fake NVML library with")

    def library(*without: str) -> Path:
        folder = tmp_path_factory.mktemp("nvml")
        subprocess.run(
            [
                compiler,
                "-shared",
                "-fPIC",
                "-Wl,-soname,libnvidia-ml.so.1",
                *(f"-D{name}=absent_{name}" for name in without),
                str(HERE / "fake_nvml.c"),
                "-o",
                str(folder / "libnvidia-ml.so.1"),
            ],
            check=True,
        )
        return folder

    return library


@pytest.fixture(scope="session")
def library(build: Build) -> Path:
    return build()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    probes: list[Probe] = []

    def started(library: Path) -> Probe:
        probes.append(Probe(library, tmp_path / "nvml-state"))
        return probes[-1]

    yield started
    for probe in probes:
        probe.stop()


def test_two_cards_are_read_back(start: Start, library: Path) -> None:
    answer = start(library).ask("connect")

    assert answer["connected"]
    assert [gpu["index"] for gpu in answer["gpus"]] == [0, 1]
    assert answer["gpus"][1] == {
        "index": 1,
        "uuid": "GPU-00000000-0000-0000-0000-000000000001",
        "name": "NVIDIA Fake H200 #1",
        "memory_total_bytes": 150754820096,
        "memory_free_bytes": 150754820096 - GIB,
        "memory_used_bytes": GIB,
        "utilization_percent": 37,
        "temperature_c": 45,
        "power_w": 123.456,
        "power_limit_w": 700.0,
        "compute_capability": "9.0",
        "error": None,
    }


def test_each_read_shows_the_cards_as_they_are_then(start: Start, library: Path) -> None:
    probe = start(library)
    probe.ask("connect")
    probe.set(gpu0_mem_used=5 * GIB, gpu1_temp=91, gpu1_util=0)

    first, second = probe.ask()["gpus"]

    assert first["memory_used_bytes"] == 5 * GIB
    assert (second["temperature_c"], second["utilization_percent"]) == (91, 0)


def test_a_lost_card_fails_alone_and_keeps_its_identity(start: Start, library: Path) -> None:
    probe = start(library)
    probe.ask("connect")
    probe.set(gpu1_error=GPU_IS_LOST)

    lost = probe.ask()

    healthy, failed = lost["gpus"]
    assert healthy["error"] is None
    assert healthy["memory_total_bytes"] == 150754820096
    assert failed["error"] == "GPU is lost"
    assert failed["uuid"] == "GPU-00000000-0000-0000-0000-000000000001"
    assert failed["memory_free_bytes"] is None
    assert lost["events"] == ["gpu_failed"]
    assert probe.ask()["events"] == []


def test_a_card_that_was_reset_is_found_by_connecting_again(start: Start, library: Path) -> None:
    probe = start(library)
    probe.ask("connect")
    probe.set(gpu0_error=GPU_IS_LOST, gpu0_until_init=2)

    lost, still_lost, found = probe.ask(), probe.ask(), probe.ask("connect")

    assert (lost["events"], still_lost["events"]) == (["gpu_failed"], [])
    assert still_lost["gpus"][0]["error"] == "GPU is lost"
    assert found["gpus"][0]["error"] is None
    assert found["events"] == ["gpu_recovered"]


def test_a_driver_that_is_not_loaded_is_no_gpu_said_once(start: Start, library: Path) -> None:
    probe = start(library)
    probe.set(init_error=DRIVER_NOT_LOADED)

    first, again = probe.ask("connect"), probe.ask("connect")

    assert (first["connected"], first["gpus"]) == (False, [])
    assert (first["events"], again["events"]) == (["no_gpu"], [])


def test_a_driver_loaded_later_is_found(start: Start, library: Path) -> None:
    probe = start(library)
    probe.set(init_error=DRIVER_NOT_LOADED)
    probe.ask("connect")
    probe.set()

    assert probe.ask()["gpus"] == []
    assert len(probe.ask("connect")["gpus"]) == 2


def test_a_driver_that_goes_away_leaves_a_host_without_gpus(start: Start, library: Path) -> None:
    probe = start(library)
    probe.ask("connect")
    probe.set(count_error=DRIVER_NOT_LOADED)

    answer = probe.ask()

    assert (answer["connected"], answer["gpus"]) == (False, [])
    assert answer["events"] == ["no_gpu"]


def test_a_driver_without_cards_is_no_gpu_said_once(start: Start, library: Path) -> None:
    probe = start(library)
    probe.set(count=0)

    first, again = probe.ask("connect"), probe.ask("connect")

    assert (first["connected"], first["gpus"]) == (True, [])
    assert (first["events"], again["events"]) == (["no_gpu"], [])


def test_a_library_that_cannot_be_loaded_is_no_gpu(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "libnvidia-ml.so.1").write_bytes(b"")

    answer = start(folder).ask("connect")

    assert (answer["connected"], answer["gpus"]) == (False, [])
    assert answer["events"] == ["no_gpu"]


@pytest.mark.parametrize(
    ("key", "field"),
    [
        ("gpu0_temp_error", "temperature_c"),
        ("gpu0_util_error", "utilization_percent"),
        ("gpu0_power_error", "power_w"),
        ("gpu0_mem_error", "memory_total_bytes"),
    ],
)
def test_an_unsupported_value_is_none(start: Start, library: Path, key: str, field: str) -> None:
    probe = start(library)
    probe.set(**{key: NOT_SUPPORTED})

    first, second = probe.ask("connect")["gpus"]

    assert (first[field], first["error"]) == (None, None)
    assert second[field] is not None


def test_an_unknown_error_of_telemetry_does_not_fail_the_card(start: Start, library: Path) -> None:
    probe = start(library)
    probe.set(gpu0_power_error=UNKNOWN)

    first = probe.ask("connect")["gpus"][0]

    assert (first["power_w"], first["error"]) == (None, None)


def test_an_unknown_error_of_memory_fails_the_card(start: Start, library: Path) -> None:
    probe = start(library)
    probe.set(gpu0_mem_error=UNKNOWN)

    assert probe.ask("connect")["gpus"][0]["error"] is not None


def test_a_driver_without_the_versioned_temperature_is_asked_the_plain_one(
    start: Start, build: Build
) -> None:
    probe = start(build("nvmlDeviceGetTemperatureV"))

    assert probe.ask("connect")["gpus"][0]["temperature_c"] == 45


def test_a_driver_without_any_temperature_gives_none(start: Start, build: Build) -> None:
    probe = start(build("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"))

    first = probe.ask("connect")["gpus"][0]

    assert (first["temperature_c"], first["error"]) == (None, None)


def test_this_host_is_sampled(tmp_path: Path) -> None:
    monitor = HardwareMonitor(tmp_path / "not" / "yet" / "made")

    sample = monitor.sample()
    monitor.close()

    assert sample.cpu_model
    assert 1 <= sample.physical_cores <= sample.logical_cores <= (psutil.cpu_count() or 0)
    assert 0 < sample.memory_available_bytes <= sample.memory_total_bytes
    assert sample.memory_total_bytes <= psutil.virtual_memory().total
    assert sample.disk_free_bytes is not None
    assert 0 < sample.disk_free_bytes <= psutil.disk_usage(str(tmp_path)).total


def test_cpu_use_is_measured_between_samples_of_different_threads(tmp_path: Path) -> None:
    monitor = HardwareMonitor(tmp_path)
    samples: list[Hardware] = []
    busy_s = _busy_s()
    while _busy_s() < busy_s + 0.1:
        pass
    thread = threading.Thread(target=lambda: samples.append(monitor.sample()))

    thread.start()
    thread.join()

    assert 0 < samples[0].cpu_percent <= 100


def test_a_v2_group_and_its_parents_limit_the_host(tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/app\n",
            "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            "sys/fs/cgroup/pod/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/pod/app/cpu.max": "max 100000\n",
            "sys/fs/cgroup/pod/memory.max": "max\n",
            "sys/fs/cgroup/pod/app/memory.max": f"{GIB}\n",
            "sys/fs/cgroup/pod/app/memory.current": f"{GIB // 2}\n",
            "sys/fs/cgroup/pod/app/memory.stat": f"anon 5\ninactive_file {GIB // 4}\n",
        },
    )

    limits = read_limits(tmp_path)

    assert limits == Limits(1.5, GIB, GIB - GIB // 4)


def test_a_v1_group_of_a_container_limits_the_host(tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n0::/\n",
            "proc/self/mountinfo": (
                "1 0 0:1 / / rw - ext4 /dev/sda rw\n"
                "31 30 0:9 /docker/a /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
                "32 30 0:8 /docker/a /sys/fs/cgroup/cpu rw a:1 - cgroup cgroup rw,cpu,cpuacct\n"
            ),
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
            "sys/fs/cgroup/memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB}\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )

    assert read_limits(tmp_path) == Limits(2.0, 2 * GIB, 2 * GIB)


def test_v1_groups_without_limits_do_not_limit(tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/\n4:cpu:/\n",
            "proc/self/mountinfo": (
                "31 30 0:9 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
                "32 30 0:8 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
            ),
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )

    assert read_limits(tmp_path) == Limits(None, None, None)


def test_a_sample_stays_within_the_groups_limits(tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            "proc/cpuinfo": "model name\t: Tiny 1\nflags\t\t: fpu avx avx2 sse\n",
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            "sys/fs/cgroup/cpu.max": "50000 100000\n",
            "sys/fs/cgroup/memory.max": "4096000\n",
            "sys/fs/cgroup/memory.current": "1000\n",
        },
    )

    sample = HardwareMonitor(tmp_path, root=tmp_path).sample()

    assert (sample.cpu_model, sample.has_avx2) == ("Tiny 1", True)
    assert (sample.physical_cores, sample.logical_cores) == (1, 1)
    assert (sample.memory_total_bytes, sample.memory_available_bytes) == (4096000, 4095000)


def _busy_s() -> float:
    times = psutil.cpu_times()
    return times.user + times.system


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
