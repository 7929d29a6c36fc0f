# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Secrets that are given out once and kept as digests."""

import hashlib
import hmac
from typing import NamedTuple

from helexa.protocol.naming import digest_of, random_id
from helexa.site.keys import random_key

SECRET_BITS = 256
HINT_CHARACTERS = 4
_ID_BITS = 80


class Minted(NamedTuple):
    """A new secret, and the name under which what it is good for is kept."""

    secret: str
    digest: str


def mint_secret() -> Minted:
    """Return a secret that nobody can guess."""
    secret = random_id(SECRET_BITS)
    return Minted(secret, digest_of(secret))


def mint_key() -> Minted:
    """Return a new API key."""
    secret = random_key()
    return Minted(secret, digest_of(secret))


def hint_of(secret: str) -> str:
    """Return what may be shown of a secret, to tell it from others."""
    return secret[-HINT_CHARACTERS:]


def new_id(kind: str) -> str:
    """Return the id of a new record, as `user_…`."""
    return f"{kind}_{random_id(_ID_BITS)}"


def form_token(session: str) -> str:
    """Return what a form of this session carries, so that no other site can send it.

    It is made from the session's secret, which other sites cannot read, and does not lead to it.
    """
    return hmac.new(session.encode(), b"helexa-form-v1", hashlib.sha256).hexdigest()


def is_form_token(session: str, shown: str) -> bool:
    """Whether `shown` is the token of this session's forms."""
    return hmac.compare_digest(form_token(session), shown)
