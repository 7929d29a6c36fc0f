# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Child process of the GPU tests: on each line of stdin does what it says, then prints JSON."""

import dataclasses
import io
import json
import logging
import sys

from helexa.neuron.gpu import GpuReader


def main() -> None:
    events = io.StringIO()
    logging.basicConfig(level=logging.INFO, stream=events, format="%(message)s")
    reader = GpuReader()
    for line in sys.stdin:
        if line.strip() == "connect":
            reader.connect()
        answer = {
            "gpus": [dataclasses.asdict(gpu) for gpu in reader.read()],
            "connected": reader.is_connected,
            "events": events.getvalue().split(),
        }
        events.seek(0)
        events.truncate()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
