# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""llama.cpp's own HTTP server as a process, from the library that comes as a Python package.

Takes the common flags of `llama-server` and means the same by them. In a process of its own because
llama.cpp ends the process on some bad models and inputs. Exits 0 on SIGTERM, 3 if the model cannot
be loaded; the reason is among the lines before.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from helexa.neuron.backends.ports import is_free

_EXIT_FAILED = 3


def main() -> int:
    """Serve until SIGTERM."""
    flags = _parser().parse_args()
    try:
        import xllamacpp  # noqa: PLC0415  (so that a missing system library is one sentence)
    except ImportError as error:
        return _failed(_missing(str(error)))
    parameters = xllamacpp.CommonParams()
    parameters.model.path = flags.model
    parameters.mmproj.path = flags.mmproj
    parameters.model_alias = {flags.alias or Path(flags.model).stem}
    parameters.hostnames = [flags.host]
    parameters.port = flags.port
    parameters.n_ctx = flags.ctx_size
    parameters.n_parallel = flags.parallel
    parameters.n_batch = flags.batch_size
    parameters.n_ubatch = flags.ubatch_size
    parameters.n_gpu_layers = flags.n_gpu_layers
    parameters.n_threads_http = flags.threads_http
    parameters.cpuparams.n_threads = flags.threads
    parameters.cpuparams_batch.n_threads = flags.threads
    parameters.embedding = flags.embeddings
    if flags.pooling:
        pooling = xllamacpp.llama_pooling_type
        parameters.pooling_type = pooling[f"LLAMA_POOLING_TYPE_{flags.pooling.upper()}"]
    parameters.chat_template = flags.chat_template
    parameters.sleep_idle_seconds = flags.sleep_idle_seconds
    parameters.endpoint_metrics = flags.metrics
    parameters.use_jinja = True
    parameters.ui = False
    if flags.api_key_file:
        parameters.api_keys = [flags.api_key_file.read_text(encoding="utf-8").strip()]
    try:
        server = xllamacpp.Server(parameters)
    except RuntimeError as error:
        # llama.cpp's own words about it are written by a thread that may end before it writes.
        is_taken = flags.port and not is_free(flags.host, flags.port)
        return _failed(f"couldn't bind to port {flags.port}" if is_taken else str(error))
    sys.stderr.write(f"serving on {server.listening_address}\n")
    # Not sys.exit: tearing the server down would wait for its streams.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    while True:
        signal.pause()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llama_child", allow_abbrev=False)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--mmproj", default="")
    parser.add_argument("-a", "--alias", default="")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("-c", "--ctx-size", type=int, default=0)
    parser.add_argument("-np", "--parallel", type=int, default=1)
    parser.add_argument("-b", "--batch-size", type=int, default=2048)
    parser.add_argument("-ub", "--ubatch-size", type=int, default=512)
    parser.add_argument("-ngl", "--n-gpu-layers", type=int, default=-1)
    parser.add_argument("-t", "--threads", type=int, default=-1)
    parser.add_argument("--threads-http", type=int, default=-1)
    parser.add_argument("--embeddings", "--embedding", action="store_true")
    parser.add_argument("--pooling", choices=["none", "mean", "cls", "last", "rank"])
    parser.add_argument("--chat-template", default="")
    parser.add_argument("--sleep-idle-seconds", type=int, default=-1)
    parser.add_argument("--metrics", action="store_true")
    parser.add_argument("--jinja", action="store_true", help="always on")
    parser.add_argument("--no-webui", action="store_true", help="always on")
    parser.add_argument("--api-key-file", type=Path)
    return parser


def _missing(reason: str) -> str:
    if "libgomp" in reason:
        return "the system library libgomp.so.1 is missing; install the package libgomp1"
    return f"llama.cpp cannot be loaded: {reason}"


def _failed(reason: str) -> int:
    sys.stderr.write(f"error: {reason}\n")
    return _EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
