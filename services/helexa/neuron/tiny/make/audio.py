# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The audio encoder: random weights, so that audio is accepted, though not understood."""

import gguf
import numpy as np
from numpy.typing import NDArray

WIDTH = 64
FEED_FORWARD = 128
LAYERS = 1
HEADS = 2
MEL_BINS = 80
POSITIONS = 1500
"""Audio frames of one 30 s window."""
STACKED_FRAMES = 20
"""Frames that become one position in the prompt; llama.cpp aborts unless it divides POSITIONS."""
PROJECTION = 128
KERNEL = 3
NORM_EPSILON = 1e-5
SPREAD = 0.05


def add_audio(writer: gguf.GGUFWriter, language_width: int) -> None:
    """Add an encoder of Whisper's shape with Ultravox's projector; the same weights every time."""
    _add_shape(writer, language_width)
    weights = _Weights(writer)
    weights.convolution("a.conv1d.1", MEL_BINS)
    weights.convolution("a.conv1d.2", WIDTH)
    weights.matrix("a.position_embd", POSITIONS, WIDTH)
    for layer in range(LAYERS):
        _add_layer(weights, f"a.blk.{layer}")
    weights.ones("a.post_ln", WIDTH)
    weights.zeros("a.post_ln", WIDTH)
    weights.ones("mm.a.norm_pre", WIDTH * STACKED_FRAMES)
    weights.matrix("mm.a.mlp.1", PROJECTION, WIDTH * STACKED_FRAMES)
    weights.ones("mm.a.norm_mid", PROJECTION // 2)
    weights.matrix("mm.a.mlp.2", language_width, PROJECTION // 2)


def _add_shape(writer: gguf.GGUFWriter, language_width: int) -> None:
    writer.add_bool("clip.has_audio_encoder", True)  # noqa: FBT003 - the library's own signature.
    writer.add_string("clip.audio.projector_type", "ultravox")
    sizes = {
        "embedding_length": WIDTH,
        "feed_forward_length": FEED_FORWARD,
        "block_count": LAYERS,
        "attention.head_count": HEADS,
        "projection_dim": language_width,
        "num_mel_bins": MEL_BINS,
        "projector.stack_factor": STACKED_FRAMES,
    }
    for name, size in sizes.items():
        writer.add_uint32(f"clip.audio.{name}", size)
    writer.add_float32("clip.audio.attention.layer_norm_epsilon", NORM_EPSILON)


def _add_layer(weights: "_Weights", prefix: str) -> None:
    for name in ("ln1", "ln2"):
        weights.ones(f"{prefix}.{name}", WIDTH)
        weights.zeros(f"{prefix}.{name}", WIDTH)
    for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
        weights.matrix(f"{prefix}.{name}", WIDTH, WIDTH)
        # Whisper's keys have no bias: llama.cpp aborts on a file that has one.
        if name != "attn_k":
            weights.zeros(f"{prefix}.{name}", WIDTH)
    weights.matrix(f"{prefix}.ffn_up", FEED_FORWARD, WIDTH)
    weights.zeros(f"{prefix}.ffn_up", FEED_FORWARD)
    weights.matrix(f"{prefix}.ffn_down", WIDTH, FEED_FORWARD)
    weights.zeros(f"{prefix}.ffn_down", WIDTH)


class _Weights:
    def __init__(self, writer: gguf.GGUFWriter) -> None:
        self._writer = writer
        self._generator = np.random.default_rng(0)

    def matrix(self, name: str, *shape: int) -> None:
        self._writer.add_tensor(f"{name}.weight", self._random(shape).astype(np.float32))

    def convolution(self, name: str, inputs: int) -> None:
        # llama.cpp's convolution takes its kernel in half precision.
        kernel = self._random((WIDTH, inputs, KERNEL)).astype(np.float16)
        self._writer.add_tensor(f"{name}.weight", kernel)
        self._writer.add_tensor(f"{name}.bias", np.zeros((WIDTH, 1), np.float32))

    def ones(self, name: str, length: int) -> None:
        self._writer.add_tensor(f"{name}.weight", np.ones(length, np.float32))

    def zeros(self, name: str, length: int) -> None:
        self._writer.add_tensor(f"{name}.bias", np.zeros(length, np.float32))

    def _random(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        return self._generator.normal(0, SPREAD, shape)
