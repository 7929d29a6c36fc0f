# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a process imports before it serves: little, so that it starts at once and stays small."""

import json
import subprocess
import sys

import pytest

IMPORTS_WITHIN_CPU_S = 2.0
"""About a quarter of that on an idle machine; `tests.benchmarks.start_times` measures it."""
MOST_BYTES = 80 * 1024 * 1024
"""About 50 MiB; what a process serves comes on top."""
NEVER_AT_START = frozenset(
    {
        *("aiohttp", "httpx", "requests", "rich", "pygments"),
        *("huggingface_hub", "gguf", "jinja2", "numpy", "torch", "transformers", "xllamacpp"),
        *("openai", "pytest", "tests"),
    }
)
"""HTTP clients with all that they bring, runtimes of models, and what only tests need."""
ONLY_NEURONS = frozenset({"psutil", "pynvml"})
PROBE = """
import json, pathlib, sys, time
import helexa.{service}.__main__
roots = sorted({{name.partition(".")[0] for name in sys.modules}})
status = pathlib.Path("/proc/self/status").read_text()
print(json.dumps([roots, time.process_time(), int(status.split("VmHWM:")[1].split()[0]) * 1024]))
"""
"""Not `ru_maxrss`: of a process that was started by a larger one it is the larger one's."""


@pytest.mark.parametrize("service", ["gateway", "scheduler", "provisioner", "portal", "neuron"])
def test_a_service_imports_only_what_it_serves_with(service: str) -> None:
    probe = [sys.executable, "-P", "-c", PROBE.format(service=service)]
    done = subprocess.run(probe, check=True, capture_output=True, text=True)
    roots, used_s, most_bytes = json.loads(done.stdout)

    assert NEVER_AT_START.intersection(roots) == set()
    assert service == "neuron" or ONLY_NEURONS.intersection(roots) == set()
    assert used_s < IMPORTS_WITHIN_CPU_S
    assert most_bytes < MOST_BYTES
