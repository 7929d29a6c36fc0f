# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""ed25519 identities in NATS's own notation (nkeys), and API keys.

A signature says nothing about what was meant by it: callers put a domain of their own in front of
what they sign.
"""

import base64
import binascii
import secrets
from pathlib import Path
from typing import Self

import nkeys
from nacl.bindings import crypto_sign, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey
from typing_extensions import override

from helexa.protocol.naming import random_id
from helexa.site.errors import KeyFileError
from helexa.site.files import create_secret, read_secret

API_KEY_PREFIX = "sk-hx-"
API_KEY_BITS = 160

_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
_CHECKSUM_BYTES = 2
_PUBLIC_PREFIX = bytes([nkeys.PREFIX_BYTE_USER])
_SEED_PREFIX = bytes(
    [
        nkeys.PREFIX_BYTE_SEED | nkeys.PREFIX_BYTE_USER >> 5,
        (nkeys.PREFIX_BYTE_USER & 31) << 3,
    ]
)


class Identity:
    """An ed25519 key pair of a NATS user."""

    def __init__(self, seed: str) -> None:
        """Take a user's seed, `SU…`.

        Raises:
            KeyFileError: it is not one.
        """
        raw = _decode(seed, _SEED_PREFIX)
        if raw is None:
            raise KeyFileError("this is not the seed of a user key (SU…, 58 characters)")
        self._seed = seed
        public, self._secret = crypto_sign_seed_keypair(raw)
        self.public = _encode(_PUBLIC_PREFIX, public)
        """The public key, `U…`."""

    @classmethod
    def generate(cls) -> Self:
        """Return a new identity."""
        return cls(_encode(_SEED_PREFIX, secrets.token_bytes(_KEY_BYTES)))

    @classmethod
    def from_seed(cls, seed: str) -> Self:
        """Return the identity of `seed`.

        Raises:
            KeyFileError: it is not a user's seed.
        """
        return cls(seed)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the identity kept in `path`.

        Raises:
            KeyFileError: the file is missing, malformed, or readable by others.
        """
        try:
            return cls(read_secret(path))
        except KeyFileError as error:
            if str(path) in str(error):
                raise
            raise KeyFileError(f"{path}: {error}") from error

    @classmethod
    def load_or_create(cls, path: Path) -> Self:
        """Return the identity kept in `path`, after creating it there if there is none.

        Raises:
            KeyFileError: the file is malformed or readable by others.
        """
        if not path.exists():
            create_secret(path, cls.generate().seed + "\n")
        return cls.load(path)

    @property
    def seed(self) -> str:
        """The secret half, as it is kept in a file."""
        return self._seed

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of the signature over `data`."""
        return crypto_sign(data, self._secret)[:_SIGNATURE_BYTES]

    @override
    def __repr__(self) -> str:
        return f"Identity({self.public})"


def verify(public: str, data: bytes, signature: bytes) -> bool:
    """Whether `signature` over `data` was made by the owner of `public`; a bad key is False."""
    raw = _decode(public, _PUBLIC_PREFIX)
    if raw is None or len(signature) != _SIGNATURE_BYTES:
        return False
    try:
        VerifyKey(raw).verify(data, signature)
    except BadSignatureError:
        return False
    return True


def is_public_key(text: str) -> bool:
    """Whether `text` is a user's public key, `U…`, with a right checksum."""
    return _decode(text, _PUBLIC_PREFIX) is not None


def random_key() -> str:
    """Return a new API key."""
    return API_KEY_PREFIX + random_id(API_KEY_BITS)


def _encode(prefix: bytes, raw: bytes) -> str:
    body = prefix + raw
    checksum: int = nkeys.crc16(body)
    return (
        base64.b32encode(body + checksum.to_bytes(_CHECKSUM_BYTES, "little")).decode().rstrip("=")
    )


def _decode(text: str, prefix: bytes) -> bytes | None:
    try:
        body = base64.b32decode(text + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError):
        return None
    raw = body[len(prefix) : -_CHECKSUM_BYTES]
    # Encoding again rejects a wrong prefix, a wrong checksum and every second spelling of a key.
    return raw if len(raw) == _KEY_BYTES and _encode(prefix, raw) == text else None
