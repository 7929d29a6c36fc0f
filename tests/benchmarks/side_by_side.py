# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Helexa beside other servers and beside none: one machine, one backend, one load, in turns.

Run from the project's root: ``python -m tests.benchmarks.side_by_side``. It compiles the backend
and the load generator (gcc), installs the other servers into `--peers-dir` (pip, apt), starts all
of them and a whole site, and asks each in every phase, one after the other, `--repetitions` times.
What cannot be installed or started is named and left out. It prints the tables, and writes every
single run to `--output`; `--page` puts the tables into a page, `--show FILE` prints those of an
earlier run. About five minutes a repetition with the defaults; nothing else should run meanwhile.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks import peers
from tests.benchmarks.conditions import conditions
from tests.benchmarks.figures import DIRECT, Results, Run
from tests.benchmarks.own_site import Counts, own_site
from tests.benchmarks.page import put_into, report
from tests.benchmarks.phases import PHASES, USUAL
from tests.benchmarks.programs import Address, MockBackend, Timing, compiled, mock_backend
from tests.benchmarks.rounds import Bench
from tests.benchmarks.targets import LeftOutError, Target
from tests.ports import free_port

from helexa.process.limits import allow_open_files

CACHE = Path("~/.cache/helexa-bench")
OUTPUT = CACHE / "side-by-side.json"
OURS = "helexa"
Start = Callable[[MockBackend, peers.Place], AbstractAsyncContextManager[Target]]


@contextlib.asynccontextmanager
async def direct(backend: MockBackend, place: peers.Place) -> AsyncIterator[Target]:
    """Yield the backend itself."""
    del place
    yield Target(DIRECT, Address((backend.port,)))


def starts(counts: Counts) -> dict[str, Start]:
    """Return how each target is started, by its name."""
    return {
        DIRECT: direct,
        OURS: lambda backend, place: own_site(backend, place.folder, counts),
        "litellm": peers.litellm,
        "sglang-router": peers.sglang_router,
        "vllm-router": peers.vllm_router,
        "nginx": peers.nginx,
    }


async def measure(told: argparse.Namespace) -> tuple[dict[str, str], list[Run]]:
    """Start everything, ask, and return the conditions and all runs."""
    allow_open_files()
    cache = told.peers_dir.expanduser()
    generator = compiled("load_generator", cache)
    counts = Counts(told.gateways, told.schedulers, told.neurons)
    known = starts(counts)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        program = compiled("mock_backend", cache)
        backend = await stack.enter_async_context(mock_backend(program, free_port()))
        targets: list[Target] = []
        for name in told.targets:
            place = peers.Place(cache / name, folder / name)
            place.folder.mkdir()
            try:
                targets.append(await stack.enter_async_context(known[name](backend, place)))
            except LeftOutError as reason:
                say(f"{name} is left out: {reason}{last_words(place.folder)}")
        about = conditions(targets, told.repetitions, told.duration_s)
        if OURS in told.targets:
            about |= {"processes of helexa": str(counts)}
        bench = Bench(backend, generator, Timing(told.warm_up_s, told.duration_s), say)
        chosen = [each for each in PHASES if each.name in told.phases]
        runs = await bench.rounds(targets, chosen, told.repetitions)
        for target in targets:
            about |= await target.look() if target.look is not None else {}
        return about, runs


def last_words(folder: Path) -> str:
    """Return the end of what the programs in `folder` have logged."""
    lines = [
        f"\n  {log.name}: {line}"
        for log in sorted(folder.glob("*.log"))
        for line in log.read_text(errors="replace").splitlines()[-5:]
    ]
    return "".join(lines)


def say(line: str) -> None:
    """Tell how far it is, where it does not get into the tables."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def saved(file: Path) -> tuple[dict[str, str], list[Run]]:
    """Return what an earlier run has written."""
    found = json.loads(file.read_text(encoding="utf-8"))
    return found["conditions"], [Run(**run) for run in found["runs"]]


def save(file: Path, about: Mapping[str, str], runs: list[Run]) -> None:
    """Write the conditions and every run."""
    found = {"conditions": about, "runs": [asdict(run) for run in runs]}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=1), encoding="utf-8")


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    names, phases = list(starts(Counts())), [each.name for each in PHASES]
    parser.add_argument("--targets", nargs="+", choices=names, default=names)
    usual = [each.name for each in USUAL]
    parser.add_argument("--phases", nargs="+", choices=phases, default=usual)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--duration-s", type=float, default=4.0, help="of each phase")
    parser.add_argument("--warm-up-s", type=float, default=1.0, help="before each phase")
    for kind in ("gateways", "schedulers", "neurons"):
        parser.add_argument(f"--{kind}", type=int, default=1, help="of our site")
    parser.add_argument("--peers-dir", type=Path, default=CACHE, help="where peers are installed")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="gets every run, as JSON")
    parser.add_argument("--page", type=Path, help="a page that gets the tables")
    parser.add_argument("--show", type=Path, help="print the tables of this file, and do no more")
    return parser.parse_args()


def main() -> int:
    """Measure, or read what was measured, and print it."""
    told = arguments()
    if told.show:
        about, runs = saved(told.show)
    else:
        about, runs = asyncio.run(measure(told))
        save(told.output.expanduser(), about, runs)
    text = report(about, Results(runs))
    print(text)
    if told.page:
        put_into(told.page, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
