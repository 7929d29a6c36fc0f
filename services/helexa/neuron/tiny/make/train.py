# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Training of both networks together, in three stages that share the given time.

Each stage starts again with a fresh optimiser and a fresh order of the dialogues: a warm-up of
30 steps, a constant rate, and a cosine fall to a hundredth. The first stage learns the sentences;
only the later ones learn to copy names, numbers and tool arguments out of the prompt.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from helexa.neuron.tiny.make.batches import Batch, ImageBatches, TextBatches
from helexa.neuron.tiny.make.network import LanguageModel, VisionModel
from helexa.neuron.tiny.make.tokens import Encoder

Report = Callable[[str], None]
"""Where progress goes, one line at a time."""

STAGES = (0.42, 0.36, 0.22)
"""The part of the time that each stage takes."""
PEAK_RATE = 3e-3
WARM_UP_STEPS = 30
CONSTANT_PART = 0.35
"""The part of a stage after which the rate begins to fall."""
LOWEST_PART = 0.01
"""The part of the peak rate that the fall ends at."""
WEIGHT_DECAY = 0.05
BETAS = (0.9, 0.98)
GRADIENT_LIMIT = 1.0
IMAGE_LOSS_WEIGHT = 0.4
STEPS_PER_REPORT = 25
SMOOTHING = 0.95


@dataclass(frozen=True, slots=True)
class Networks:
    """The two networks, trained as one."""

    language: LanguageModel
    vision: VisionModel

    def parameters(self) -> list[nn.Parameter]:
        """Every number that training changes."""
        return [*self.language.parameters(), *self.vision.parameters()]


@dataclass(slots=True)
class Progress:
    """What one stage has done so far."""

    steps: int = 0
    tokens: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    """Smoothed losses by name, in nats a token."""

    def add(self, tokens: int, losses: dict[str, float]) -> None:
        """Count one step."""
        self.steps += 1
        self.tokens += tokens
        for name, loss in losses.items():
            before = self.losses.get(name, loss)
            self.losses[name] = SMOOTHING * before + (1 - SMOOTHING) * loss


def train(encoder: Encoder, documents: list[list[int]], seconds: float, report: Report) -> Networks:
    """Networks trained from nothing for `seconds`; more time gives better answers."""
    torch.manual_seed(0)
    networks = Networks(LanguageModel(), VisionModel())
    report(f"{sum(each.numel() for each in networks.parameters())} parameters")
    for number, part in enumerate(STAGES, start=1):
        texts, images = TextBatches(encoder, documents, number), ImageBatches(encoder, number)
        report(f"stage {number} of {len(STAGES)}")
        _Stage(networks, encoder.image, report).run(texts, images, seconds * part)
    return networks


def rate(step: int, done: float) -> float:
    """The learning rate at a step, counted from 0, with the part `done` of the stage over."""
    warm = PEAK_RATE * min(1.0, (step + 1) / WARM_UP_STEPS)
    if done < CONSTANT_PART:
        return warm
    fall = 0.5 * (1 + math.cos(math.pi * (done - CONSTANT_PART) / (1 - CONSTANT_PART)))
    return warm * max(LOWEST_PART, fall)


def batch_loss(networks: Networks, batch: Batch, image_token: int) -> Tensor:
    """The weighted mean cross-entropy of the batch's tokens, each predicted from those before."""
    inputs, targets, weights = batch.ids[:, :-1], batch.ids[:, 1:], batch.weights[:, 1:].flatten()
    embedded = networks.language.token_embd(inputs)
    if batch.pixels is not None:
        patches = networks.vision(batch.pixels)
        embedded = embedded.masked_scatter((inputs == image_token).unsqueeze(-1), patches)
    scores = networks.language(embedded)
    losses = functional.cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="none")
    return (losses * weights).sum() / weights.sum()


def _optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for parameter in parameters:
        (matrices if parameter.dim() > 1 else vectors).append(parameter)
    groups = [
        {"params": matrices, "weight_decay": WEIGHT_DECAY},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=BETAS)


class _Stage:
    def __init__(self, networks: Networks, image_token: int, report: Report) -> None:
        self._networks = networks
        self._image_token = image_token
        self._report = report
        self._parameters = networks.parameters()
        self._optimizer = _optimizer(self._parameters)
        self._progress = Progress()

    def run(self, texts: TextBatches, images: ImageBatches, seconds: float) -> None:
        start = time.monotonic()
        while (spent := time.monotonic() - start) < seconds:
            self._set_rate(rate(self._progress.steps, spent / seconds))
            self._step(texts.draw(), images.draw())
            if self._progress.steps % STEPS_PER_REPORT == 0:
                self._say(spent, seconds)
        self._say(seconds, seconds)

    def _set_rate(self, value: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = value

    def _step(self, text: Batch, image: Batch) -> None:
        text_loss = batch_loss(self._networks, text, self._image_token)
        image_loss = batch_loss(self._networks, image, self._image_token)
        self._optimizer.zero_grad(set_to_none=True)
        (text_loss + IMAGE_LOSS_WEIGHT * image_loss).backward()
        nn.utils.clip_grad_norm_(self._parameters, GRADIENT_LIMIT)
        self._optimizer.step()
        self._progress.add(text.ids.numel(), {"text": text_loss.item(), "image": image_loss.item()})

    def _say(self, spent: float, seconds: float) -> None:
        progress = self._progress
        losses = ", ".join(f"{name} loss {loss:.4f}" for name, loss in progress.losses.items())
        counted = f"{progress.steps} steps, {progress.tokens} tokens"
        self._report(f"{spent:.0f} of {seconds:.0f} s, {counted}, {losses}")
