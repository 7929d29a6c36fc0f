# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The trained networks as the two GGUF files that llama.cpp reads."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import gguf
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn

from helexa.neuron.tiny.files import MODEL_NAME
from helexa.neuron.tiny.make.audio import add_audio
from helexa.neuron.tiny.make.network import LANGUAGE, VISION, LanguageModel, VisionModel
from helexa.neuron.tiny.make.template import template_source
from helexa.neuron.tiny.make.tokens import END_OF_TEXT, MESSAGE_END, PRINTED, SPECIAL

Values: TypeAlias = NDArray[np.float32]

LICENSE = "LicenseRef-PolyForm-Shield-1.0.0"
PADDING = "<|pad"
QUANTIZATION_BLOCK = 32
"""Weights that q8_0 stores under one scale."""
VISION_PREFIXES = {"projection_in": "mm.0", "projection_out": "mm.2"}
"""The projector's two layers, which llama.cpp does not count to the encoder (`v.`)."""


def write_model(path: Path, language: LanguageModel, tokenizer: Tokenizer) -> None:
    """Write the language model, its tokenizer and its chat template, in q8_0."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(MODEL_NAME)
    writer.add_description("The embedded model of Helexa")
    writer.add_license(LICENSE)
    _add_shape(writer)
    _add_tokenizer(writer, tokenizer)
    for name, values in _tensors(language):
        _add_quantized(writer, name, values)
    _finish(writer)


def write_projector(path: Path, vision: VisionModel) -> None:
    """Write the image encoder, and an audio encoder that has learnt nothing, in float32."""
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_name(f"{MODEL_NAME}-mmproj")
    writer.add_type("mmproj")
    writer.add_license(LICENSE)
    writer.add_bool("clip.use_gelu", True)  # noqa: FBT003 - the library's own signature.
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    add_audio(writer, LANGUAGE.width)
    _add_vision(writer, vision)
    _finish(writer)


def _add_shape(writer: gguf.GGUFWriter) -> None:
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_context_length(LANGUAGE.context_tokens)
    writer.add_embedding_length(LANGUAGE.width)
    writer.add_block_count(LANGUAGE.layers)
    writer.add_feed_forward_length(LANGUAGE.feed_forward)
    writer.add_head_count(LANGUAGE.heads)
    writer.add_head_count_kv(LANGUAGE.key_value_heads)
    writer.add_layer_norm_rms_eps(LANGUAGE.norm_epsilon)
    writer.add_rope_freq_base(LANGUAGE.rope_base)
    writer.add_rope_dimension_count(LANGUAGE.head_width)
    writer.add_vocab_size(LANGUAGE.vocabulary)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    known = tokenizer.get_vocab_size()
    tokens = [tokenizer.id_to_token(number) for number in range(known)]
    # A small corpus can run out of pairs to merge before the vocabulary is full.
    tokens += [f"{PADDING}{number}|>" for number in range(known, LANGUAGE.vocabulary)]
    end_of_text, message_end = map(tokenizer.token_to_id, (END_OF_TEXT, MESSAGE_END))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([_token_type(token) for token in tokens])
    writer.add_token_merges(_merges(tokenizer))
    writer.add_bos_token_id(end_of_text)
    writer.add_eos_token_id(message_end)
    writer.add_eot_token_id(message_end)
    writer.add_pad_token_id(end_of_text)
    writer.add_add_bos_token(True)  # noqa: FBT003 - the library's own signature.
    writer.add_add_eos_token(False)  # noqa: FBT003 - the library's own signature.
    writer.add_chat_template(template_source())


def _token_type(token: str) -> gguf.TokenType:
    if token in PRINTED:
        return gguf.TokenType.USER_DEFINED
    if token in SPECIAL or token.startswith(PADDING):
        return gguf.TokenType.CONTROL
    return gguf.TokenType.NORMAL


def _merges(tokenizer: Tokenizer) -> list[str]:
    pairs = json.loads(tokenizer.to_str())["model"]["merges"]
    return [pair if isinstance(pair, str) else " ".join(pair) for pair in pairs]


def _add_vision(writer: gguf.GGUFWriter, vision: VisionModel) -> None:
    writer.add_bool("clip.has_vision_encoder", True)  # noqa: FBT003 - the library's own signature.
    writer.add_bool("clip.has_llava_projector", True)  # noqa: FBT003 - the library's own signature.
    writer.add_string("clip.vision.projector_type", "mlp")
    sizes = {
        "image_size": VISION.image_pixels,
        "patch_size": VISION.patch_pixels,
        "embedding_length": VISION.width,
        "feed_forward_length": VISION.feed_forward,
        "projection_dim": LANGUAGE.width,
        "attention.head_count": VISION.heads,
        "block_count": VISION.layers,
    }
    for name, size in sizes.items():
        writer.add_uint32(f"clip.vision.{name}", size)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", VISION.norm_epsilon)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    for name, values in _tensors(vision):
        module, _, rest = name.partition(".")
        prefix = VISION_PREFIXES.get(module, f"v.{module}")
        writer.add_tensor(f"{prefix}.{rest or 'weight'}", values)


def _tensors(network: nn.Module) -> Iterator[tuple[str, Values]]:
    for name, tensor in network.state_dict().items():
        yield name, np.ascontiguousarray(tensor.numpy(), dtype=np.float32)


def _add_quantized(writer: gguf.GGUFWriter, name: str, values: Values) -> None:
    is_matrix = values.ndim > 1 and values.shape[-1] % QUANTIZATION_BLOCK == 0
    if not is_matrix:
        writer.add_tensor(name, values)
        return
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
