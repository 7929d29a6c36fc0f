# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The default model's two files, and the digests that they must have."""

import hashlib
from pathlib import Path

MODEL_NAME = "helexa-tiny"
"""The name that the model is served under."""

SHA256 = {
    "helexa-tiny.gguf": "0bbb8f2ed7e71216628651f8d7eb2abc920c21eb05a634c6abee151860377f18",
    "helexa-tiny-mmproj.gguf": "29e7171c11dd1a44a4b5956305fa2ec3f70245d96d540e1c165a8b88e30b18c0",
}
"""The SHA-256 of each file, in hexadecimal, by file name."""


def model_path() -> Path:
    """The language model, in q8_0: 1,010,784 bytes."""
    return Path(__file__).with_name(f"{MODEL_NAME}.gguf")


def projector_path() -> Path:
    """The image and audio encoders, in float32: 1,840,608 bytes."""
    return Path(__file__).with_name(f"{MODEL_NAME}-mmproj.gguf")


def digest(path: Path) -> str:
    """The SHA-256 of the file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def changed_files(directory: Path | None = None) -> list[str]:
    """Names of the files in `directory` that are missing or not as released; by default, ours."""
    folder = directory or Path(__file__).parent
    return [name for name, expected in SHA256.items() if not _matches(folder / name, expected)]


def _matches(path: Path, expected: str) -> bool:
    return path.is_file() and digest(path) == expected
