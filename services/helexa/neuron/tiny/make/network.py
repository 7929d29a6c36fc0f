# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The two networks: a Llama of 0.9 million parameters and an image encoder of 0.14 million.

Both are what llama.cpp computes from the exported files: the language model is its `llama`
architecture, the image encoder its `clip` with LLaVA's two-layer projector. The modules carry the
names that the tensors have in the files.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class LanguageShape:
    """Sizes of the language model."""

    vocabulary: int = 1024
    width: int = 128
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 2
    feed_forward: int = 384
    context_tokens: int = 4096
    norm_epsilon: float = 1e-5
    rope_base: float = 10000.0

    @property
    def head_width(self) -> int:
        """Numbers in one attention head's query."""
        return self.width // self.heads


@dataclass(frozen=True, slots=True)
class VisionShape:
    """Sizes of the image encoder."""

    image_pixels: int = 64
    """Width and height of the image that it sees."""
    patch_pixels: int = 16
    width: int = 64
    layers: int = 2
    heads: int = 2
    feed_forward: int = 128
    norm_epsilon: float = 1e-5

    @property
    def patches(self) -> int:
        """Positions that one image takes in the prompt."""
        return (self.image_pixels // self.patch_pixels) ** 2


LANGUAGE = LanguageShape()
VISION = VisionShape()


class RootMeanSquareNorm(nn.Module):
    """Scaling to a root mean square of one, then by a learnt weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return functional.rms_norm(x, (x.shape[-1],), self.weight, LANGUAGE.norm_epsilon)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


class LanguageBlock(nn.Module):
    """Grouped-query attention with rotary positions, then a gated feed-forward layer."""

    def __init__(self) -> None:
        super().__init__()
        width, inner = LANGUAGE.width, LANGUAGE.feed_forward
        key_value_width = LANGUAGE.key_value_heads * LANGUAGE.head_width
        self.attn_norm = RootMeanSquareNorm(width)
        self.attn_q = _linear(width, width)
        self.attn_k = _linear(width, key_value_width)
        self.attn_v = _linear(width, key_value_width)
        self.attn_output = _linear(width, width)
        self.ffn_norm = RootMeanSquareNorm(width)
        self.ffn_gate = _linear(width, inner)
        self.ffn_up = _linear(width, inner)
        self.ffn_down = _linear(inner, width)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """One layer's output, `(batch, tokens, width)` as its input."""
        x = x + self._attend(self.attn_norm(x), cosines, sines)
        inner = self.ffn_norm(x)
        gated = functional.silu(self.ffn_gate(inner)) * self.ffn_up(inner)
        return x + self.ffn_down(gated)

    def _attend(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        groups = LANGUAGE.heads // LANGUAGE.key_value_heads
        query = _rotate(_split(self.attn_q(x), LANGUAGE.heads), cosines, sines)
        key = _rotate(_split(self.attn_k(x), LANGUAGE.key_value_heads), cosines, sines)
        value = _split(self.attn_v(x), LANGUAGE.key_value_heads)
        attended = functional.scaled_dot_product_attention(
            query,
            key.repeat_interleave(groups, 1),
            value.repeat_interleave(groups, 1),
            is_causal=True,
        )
        return self.attn_output(_join(attended))


class LanguageModel(nn.Module):
    """Embeddings in, scores of the next token out; input and output share one embedding table."""

    cosines: Tensor
    sines: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.token_embd = nn.Embedding(LANGUAGE.vocabulary, LANGUAGE.width)
        self.blk = nn.ModuleList(LanguageBlock() for _ in range(LANGUAGE.layers))
        self.output_norm = RootMeanSquareNorm(LANGUAGE.width)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
        cosines, sines = _rotations()
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)

    def forward(self, embedded: Tensor) -> Tensor:
        """Scores `(batch, tokens, vocabulary)` from embeddings `(batch, tokens, width)`."""
        tokens = embedded.shape[1]
        for block in self.blk:
            embedded = block(embedded, self.cosines[:tokens], self.sines[:tokens])
        return functional.linear(self.output_norm(embedded), self.token_embd.weight)


class VisionBlock(nn.Module):
    """Attention among patches, then a feed-forward layer."""

    def __init__(self) -> None:
        super().__init__()
        width = VISION.width
        self.ln1 = nn.LayerNorm(width, VISION.norm_epsilon)
        self.attn_q = nn.Linear(width, width)
        self.attn_k = nn.Linear(width, width)
        self.attn_v = nn.Linear(width, width)
        self.attn_out = nn.Linear(width, width)
        self.ln2 = nn.LayerNorm(width, VISION.norm_epsilon)
        self.ffn_up = nn.Linear(width, VISION.feed_forward)
        self.ffn_down = nn.Linear(VISION.feed_forward, width)

    def forward(self, x: Tensor) -> Tensor:
        """One layer's output, `(batch, patches, width)` as its input."""
        inner = self.ln1(x)
        attended = functional.scaled_dot_product_attention(
            _split(self.attn_q(inner), VISION.heads),
            _split(self.attn_k(inner), VISION.heads),
            _split(self.attn_v(inner), VISION.heads),
        )
        x = x + self.attn_out(_join(attended))
        return x + self.ffn_down(_gelu(self.ffn_up(self.ln2(x))))


class VisionModel(nn.Module):
    """Pixels in, embeddings that the language model reads in place of tokens out."""

    def __init__(self) -> None:
        super().__init__()
        width, patch = VISION.width, VISION.patch_pixels
        self.patch_embd = nn.Conv2d(3, width, patch, patch, bias=False)
        self.position_embd = nn.Parameter(torch.randn(VISION.patches, width) * 0.02)
        self.pre_ln = nn.LayerNorm(width, VISION.norm_epsilon)
        self.blk = nn.ModuleList(VisionBlock() for _ in range(VISION.layers))
        self.projection_in = nn.Linear(width, LANGUAGE.width)
        self.projection_out = nn.Linear(LANGUAGE.width, LANGUAGE.width)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embeddings `(batch, patches, language width)` of pixels `(batch, 3, height, width)`."""
        patches = self.patch_embd(pixels).flatten(2).transpose(1, 2)
        x = self.pre_ln(patches + self.position_embd)
        for block in self.blk:
            x = block(x)
        return self.projection_out(_gelu(self.projection_in(x)))


def _gelu(x: Tensor) -> Tensor:
    # The approximation that llama.cpp computes.
    return functional.gelu(x, approximate="tanh")


def _split(x: Tensor, heads: int) -> Tensor:
    batch, positions, width = x.shape
    return x.view(batch, positions, heads, width // heads).transpose(1, 2)


def _join(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _rotations() -> tuple[Tensor, Tensor]:
    exponents = torch.arange(0, LANGUAGE.head_width, 2).float() / LANGUAGE.head_width
    positions = torch.arange(LANGUAGE.context_tokens).float()
    angles = torch.outer(positions, 1.0 / LANGUAGE.rope_base**exponents)
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    # llama.cpp's `llama` architecture turns neighbours as a pair, where other ports turn halves.
    even, odd = x[..., 0::2], x[..., 1::2]
    rotated = (even * cosines - odd * sines, even * sines + odd * cosines)
    return torch.stack(rotated, -1).flatten(-2)
