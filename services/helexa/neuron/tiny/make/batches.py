# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Training batches: dialogues packed end to end, and dialogues about one image each."""

from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from torch import Tensor

from helexa.neuron.tiny.make.images import ImageSource
from helexa.neuron.tiny.make.network import VISION
from helexa.neuron.tiny.make.tokens import Encoder

SHORT_ROWS, SHORT_TOKENS = 4, 512
LONG_ROWS, LONG_TOKENS = 1, 2048
LONG_EVERY = 4
"""One batch in so many is a long one, so that the model meets positions beyond 512."""
IMAGES = 4


@dataclass(frozen=True, slots=True)
class Batch:
    """Token ids, what each counts in the loss, and the images that the ids refer to."""

    ids: Tensor
    """Shape `(rows, tokens)`."""
    weights: Tensor
    """Shape `(rows, tokens)`."""
    pixels: Tensor | None = None
    """Shape `(rows, 3, height, width)`, from -1 to 1."""


class TextBatches:
    """An endless source of packed dialogues, shuffled again after each pass."""

    def __init__(self, encoder: Encoder, documents: list[list[int]], seed: int) -> None:
        self._encoder = encoder
        self._documents = documents
        self._rng = Random(seed)  # noqa: S311 - training data, not a secret.
        self._order: list[int] = []
        self._batches = 0

    def draw(self) -> Batch:
        """The next batch."""
        self._batches += 1
        is_long = self._batches % LONG_EVERY == 0
        rows, tokens = (LONG_ROWS, LONG_TOKENS) if is_long else (SHORT_ROWS, SHORT_TOKENS)
        ids = [self._row(tokens) for _ in range(rows)]
        return Batch(torch.tensor(ids), torch.tensor([self._encoder.weights(row) for row in ids]))

    def _row(self, tokens: int) -> list[int]:
        row: list[int] = []
        while len(row) < tokens:
            if not self._order:
                self._order = self._rng.sample(range(len(self._documents)), len(self._documents))
            row += self._documents[self._order.pop()]
        return row[:tokens]


class ImageBatches:
    """An endless source of newly drawn images with their dialogues."""

    def __init__(self, encoder: Encoder, seed: int) -> None:
        self._encoder = encoder
        self._source = ImageSource(seed)

    def draw(self) -> Batch:
        """The next batch; only the answers count in its loss."""
        dialogues = [self._source.draw() for _ in range(IMAGES)]
        rows = [self._ids(dialogue.text) for dialogue in dialogues]
        shape = (len(rows), max(len(row) for row in rows))
        ids, weights = torch.full(shape, self._encoder.end_of_text), torch.zeros(shape)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            weights[index, : len(row)] = torch.tensor(self._encoder.weights(row)).floor()
        pixels = np.stack([dialogue.pixels for dialogue in dialogues])
        return Batch(ids, weights, torch.from_numpy(pixels / 127.5 - 1.0).permute(0, 3, 1, 2))

    def _ids(self, text: str) -> list[int]:
        image = self._encoder.image
        ids = [self._encoder.end_of_text]
        for token in self._encoder.encode(text):
            ids += [token] * (VISION.patches if token == image else 1)
        return ids
