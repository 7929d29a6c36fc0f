# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Reading the header of a model's file."""

import struct
from pathlib import Path

import pytest

from helexa.neuron.backends.gguf import GgufError, GgufHeader, read_header
from helexa.neuron.tiny import files


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(*pairs: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(pairs)


ARCHITECTURE = text("general.architecture") + struct.pack("<I", 8) + text("bert")
TAGS = text("general.tags") + struct.pack("<IIQ", 9, 8, 2) + text("one") + text("two")
NUMBERS = text("general.numbers") + struct.pack("<IIQ", 9, 4, 3) + bytes(12)
CONTEXT = text("bert.context_length") + struct.pack("<II", 4, 512)
POOLING = text("bert.pooling_type") + struct.pack("<II", 4, 1)
TOKENS = text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 1 << 40)


def test_the_default_model_says_what_it_is() -> None:
    assert read_header(files.model_path()) == GgufHeader("llama", 4096, is_embedding_model=False)


def test_an_embedding_model_is_known_by_its_pooling(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(gguf(TAGS, NUMBERS, CONTEXT, ARCHITECTURE, POOLING, TOKENS))

    assert read_header(file) == GgufHeader("bert", 512, is_embedding_model=True)


def test_a_file_that_breaks_off_anywhere_in_its_header_is_told_as_such(tmp_path: Path) -> None:
    whole = gguf(ARCHITECTURE, TAGS, CONTEXT)
    file = tmp_path / "x.gguf"
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(GgufError):
            read_header(file)


@pytest.mark.parametrize(
    "damaged",
    [
        b"NOTG" + bytes(60),
        gguf(text("key") + struct.pack("<I", 77)),
        gguf(struct.pack("<Q", 1 << 60)),
        gguf(struct.pack("<Q", 2) + b"\xff\xfe" + struct.pack("<I", 8) + text("x")),
    ],
)
def test_a_damaged_header_is_told_as_such(tmp_path: Path, damaged: bytes) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(damaged)

    with pytest.raises(GgufError):
        read_header(file)
