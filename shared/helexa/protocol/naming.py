# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Names that become subject tokens, keys or ids."""

import hashlib
import os
import re

_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_ALL_SAFE = re.compile(r"[A-Za-z0-9_-]*")
_ESCAPE = re.compile(r"=([0-9A-F]{2})")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_REQUEST_ID = re.compile(rf"({_TOKEN.pattern})\.{_TOKEN.pattern}")


def encode_token(name: str) -> str:
    """Return `name` as one subject token and KV key; bytes that are not safe become `=XX`."""
    if _ALL_SAFE.fullmatch(name):
        return name
    return "".join(chr(byte) if byte in _SAFE else f"={byte:02X}" for byte in name.encode())


def decode_token(token: str) -> str:
    """Return the name that `encode_token` made `token` of."""
    if _ALL_SAFE.fullmatch(token):
        return token
    raw = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), token)
    return raw.encode("latin-1").decode()


def is_token(text: str) -> bool:
    """Whether `text` may be an id of ours: letters, digits, `_` and `-`, at most 64."""
    return _TOKEN.fullmatch(text) is not None


def random_id(bits: int = 128) -> str:
    """Return a lower-case random id of at least `bits` bits; nobody can guess one from another."""
    wanted = -(-bits // _BITS_A_CHARACTER)
    try:
        text = _pieces.pop()
    except IndexError:
        _make_pieces()
        return random_id(bits)
    return text[:wanted] if wanted <= _PIECE else text + random_id(bits - _PIECE_BITS)


def _make_pieces() -> None:
    # Asking the system for each piece, and encoding it, took longer than sending a request.
    text = os.urandom(_PIECE * _PIECES).translate(_LETTERS).decode()
    _pieces.extend([text[at : at + _PIECE] for at in range(0, len(text), _PIECE)])


_BITS_A_CHARACTER = 5
_PIECE = 26
_PIECE_BITS = _PIECE * _BITS_A_CHARACTER
_PIECES = 256
_LETTERS = b"abcdefghijklmnopqrstuvwxyz234567" * 8
"""The letter for each byte: base 32, evenly."""
_pieces: list[str] = []
"""Each is given out once; `list.pop` is one step, so that threads share it."""
os.register_at_fork(after_in_child=_pieces.clear)


def digest_of(secret: str) -> str:
    """Return the name under which a key's or a secret's record is kept: SHA-256, in hexadecimal.

    A fast digest is enough for what nobody could guess anyway; passwords need another.
    """
    return hashlib.sha256(secret.encode()).hexdigest()


def instance_id() -> str:
    """Return an id for one start of one process (60 bits)."""
    return random_id(60)[:12]


def request_id(home: str) -> str:
    """Return a new request id: the gateway it came to, a dot, and 128 random bits.

    It is the resume handle too, so it must not be guessable.
    """
    return f"{home}.{random_id(128)}"


def home_of(request: str) -> str | None:
    """Return the gateway in a request id, or `None` if it is not one."""
    found = _REQUEST_ID.fullmatch(request)
    return found[1] if found else None


def request_token(request: str) -> str:
    """Return the part of a request id that stands in the token subject."""
    return request.partition(".")[2]
