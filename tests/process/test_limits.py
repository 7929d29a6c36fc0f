# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import resource
import subprocess
import sys

PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, int(sys.argv[1])))
from helexa.process.limits import allow_open_files
print(allow_open_files(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def test_a_process_takes_the_open_files_that_it_may_have() -> None:
    hard = min(2048, resource.getrlimit(resource.RLIMIT_NOFILE)[1])

    said = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(hard)], capture_output=True, text=True, check=True
    )

    assert said.stdout.split() == [str(hard)] * 2
