# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Drawn images, of a shape or of nothing, in eight colours, and the dialogues about them."""

from dataclasses import dataclass
from random import Random
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from helexa.neuron.tiny.make.network import VISION
from helexa.neuron.tiny.make.phrases import phrases
from helexa.neuron.tiny.make.tokens import IMAGE

PIXEL_NOISE = 6.0
TINT_NOISE = 8.0
"""Standard deviations, of 255: of each pixel, and of each colour over the entire image."""
IMAGE_PLACES = {
    f"{IMAGE}\n{{question}}": 0.4,
    f"{IMAGE}{{question}}": 0.1,
    f"{{question}}\n{IMAGE}": 0.4,
    f"{{question}}{IMAGE}": 0.1,
}
"""Where a client puts the image, before the question or after it, and how often."""

Pixels: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ImageDialogue:
    """One question about one image."""

    pixels: Pixels
    """Shape `(height, width, 3)`, 0 to 255."""
    text: str
    """The rendered dialogue; the image's token stands where its patches go."""


class ImageSource:
    """A seeded source of image dialogues."""

    def __init__(self, seed: int) -> None:
        self._rng = Random(seed)  # noqa: S311 - training data, not a secret.
        self._noise = np.random.default_rng(seed)

    def draw(self) -> ImageDialogue:
        """The next image and its dialogue."""
        rng, images = self._rng, phrases().images
        background, foreground = rng.sample(list(images.colours), 2)
        shape = rng.choice((*images.shapes, ""))
        pixels: Pixels = np.empty((VISION.image_pixels, VISION.image_pixels, 3), np.float32)
        pixels[:] = images.colours[background]
        if shape:
            pixels[self._inside(shape)] = images.colours[foreground]
        answer = images.shape if shape else images.plain
        answer = answer.format(background=background, foreground=foreground, shape=shape)
        return ImageDialogue(self._noisy(pixels), self._text(answer))

    def _inside(self, shape: str) -> NDArray[np.bool_]:
        rows, columns = np.mgrid[0 : VISION.image_pixels, 0 : VISION.image_pixels]
        right = columns - self._rng.randint(20, 44)
        down = rows - self._rng.randint(20, 44)
        size = self._rng.randint(11, 19)
        if shape == "circle":
            inside = right**2 + down**2 <= size**2
        elif shape == "square":
            inside = (abs(right) <= size) & (abs(down) <= size)
        else:
            inside = (abs(down) <= size) & (abs(right) <= (down + size) / 2)
        return np.asarray(inside)

    def _noisy(self, pixels: Pixels) -> Pixels:
        noise = self._noise.normal(0, PIXEL_NOISE, pixels.shape)
        tint = self._noise.normal(0, TINT_NOISE, (1, 1, 3))
        return np.clip(pixels + noise + tint, 0, 255).astype(np.float32)

    def _text(self, answer: str) -> str:
        corpus = phrases()
        question = self._rng.choice(corpus.images.questions)
        place = self._rng.choices(list(IMAGE_PLACES), list(IMAGE_PLACES.values()))[0]
        content = place.format(question=question)
        system = self._rng.choice(corpus.systems)
        prefix = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
        user = f"<|im_start|>user\n{content}<|im_end|>\n"
        return f"{prefix}{user}<|im_start|>assistant\n{answer}<|im_end|>\n"
