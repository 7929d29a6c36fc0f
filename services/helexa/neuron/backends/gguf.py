# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The few facts of a GGUF file that must be known before it is loaded.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_MAX_STRING_BYTES = 1 << 20


class GgufError(ValueError):
    """The file is not a GGUF file that can be read."""


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a model's file says of the model."""

    architecture: str
    context_tokens: int | None
    """The longest context that it was trained with."""
    is_embedding_model: bool
    """Made to turn text into vectors, and unable to chat."""


def read_header(path: Path) -> GgufHeader:
    """Return the header of a file; reads a few kilobytes.

    Raises:
        GgufError: it is no GGUF file, or broken off.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        try:
            values = _values(file)
        except (struct.error, UnicodeDecodeError, KeyError) as error:
            raise GgufError("the header of the model's file is damaged") from error
    architecture = str(values.get("general.architecture", ""))
    context = values.get(f"{architecture}.context_length")
    return GgufHeader(
        architecture,
        context if isinstance(context, int) and context > 0 else None,
        f"{architecture}.pooling_type" in values,
    )


def _values(file: BinaryIO) -> dict[str, object]:
    """The key-value pairs before the tokenizer's, which are long and come last."""
    magic = file.read(4)
    if magic != _MAGIC:
        raise GgufError("the model's file is not a GGUF file")
    _version, _tensors, count = struct.unpack("<IQQ", file.read(20))
    values: dict[str, object] = {}
    for _ in range(count):
        key = _string(file)
        if key.startswith("tokenizer."):
            break
        values[key] = _value(file, _number(file, "<I"))
    return values


def _value(file: BinaryIO, kind: int) -> object:
    if kind == _STRING:
        return _string(file)
    if kind == _ARRAY:
        _skip_array(file)
        return None
    return _number(file, _SCALARS[kind])


def _skip_array(file: BinaryIO) -> None:
    kind, count = _number(file, "<I"), _number(file, "<Q")
    if kind == _STRING:
        for _ in range(count):
            _string(file)
    else:
        file.seek(count * struct.calcsize(_SCALARS[kind]), 1)


def _string(file: BinaryIO) -> str:
    length = _number(file, "<Q")
    if length > _MAX_STRING_BYTES:
        raise GgufError("the header of the model's file is damaged")
    data = file.read(length)
    if len(data) < length:
        raise GgufError("the model's file is incomplete")
    return data.decode()


def _number(file: BinaryIO, form: str) -> int:
    value: int = struct.unpack(form, file.read(struct.calcsize(form)))[0]
    return value
