# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`python -m helexa.neuron.tiny.make`: make the default model from our own text alone."""

import argparse
import sys
import time
from pathlib import Path
from random import Random

import torch

from helexa.neuron.tiny.files import MODEL_NAME, digest
from helexa.neuron.tiny.make.corpus import dialogue
from helexa.neuron.tiny.make.export import write_model, write_projector
from helexa.neuron.tiny.make.network import LANGUAGE
from helexa.neuron.tiny.make.template import render
from helexa.neuron.tiny.make.tokens import Encoder, learn_tokenizer
from helexa.neuron.tiny.make.train import Report, train

DIALOGUES = 60_000
DIALOGUES_FOR_TOKENIZER = 8_000
DEFAULT_MINUTES = 36.0
SEED = 1


def main() -> None:
    """Make the tokenizer, train, and write both files."""
    arguments = _arguments()
    start = time.monotonic()

    def report(line: str) -> None:
        sys.stdout.write(f"{time.monotonic() - start:7.1f} s  {line}\n")
        sys.stdout.flush()

    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for path in make(arguments.out, arguments.minutes * 60, report):
        report(f"{path}: {path.stat().st_size} bytes, SHA-256 {digest(path)}")


def make(out: Path, seconds: float, report: Report) -> tuple[Path, Path]:
    """Make both files in `out`; returns the model's path and the projector's."""
    rng = Random(SEED)  # noqa: S311 - training data, not a secret.
    texts = [render(dialogue(rng)) for _ in range(DIALOGUES)]
    tokenizer = learn_tokenizer(texts[:DIALOGUES_FOR_TOKENIZER], LANGUAGE.vocabulary)
    encoder = Encoder(tokenizer)
    documents = encoder.encode_dialogues(texts)
    report(f"{DIALOGUES} dialogues, {sum(map(len, documents))} tokens")
    networks = train(encoder, documents, seconds, report)
    model, projector = out / f"{MODEL_NAME}.gguf", out / f"{MODEL_NAME}-mmproj.gguf"
    write_model(model, networks.language, tokenizer)
    write_projector(projector, networks.vision)
    return model, projector


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m helexa.neuron.tiny.make", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the two files")
    parser.add_argument(
        "--minutes",
        type=float,
        default=DEFAULT_MINUTES,
        help="time to train, beside half a minute of preparation (default %(default)s)",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
