# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""E-mail addresses: one form for each, and the name under which it is kept. Pure."""

import hashlib
import re
import unicodedata

from helexa.protocol.errors import BadRequestError

MAX_ADDRESS_BYTES = 254
MAX_LOCAL_BYTES = 64
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")


def normalise(address: str) -> str:
    """Return the one form of an e-mail address: composed, in lower case, its domain in ASCII.

    The part before the `@` is in lower case too. A server may tell letters of it apart; none that
    matters does, and two accounts of one person would be the more common harm. What comes after a
    `+`, and dots, mean something to some servers only, and stay.

    Raises:
        BadRequestError: it is no address.
    """
    text = unicodedata.normalize("NFKC", address).strip()
    local, found, domain = text.rpartition("@")
    if not found or not _is_local(local):
        raise _bad()
    made = f"{local.lower()}@{_ascii_domain(domain)}"
    if len(made.encode()) > MAX_ADDRESS_BYTES:
        raise _bad()
    return made


def address_key(portal: str, address: str) -> str:
    """Return the name under which a normalised address of a portal is kept.

    Each portal has its own users: one address may have an account at each.
    """
    return hashlib.sha256(f"{portal}\0{address}".encode()).hexdigest()


def _is_local(text: str) -> bool:
    if not 0 < len(text.encode()) <= MAX_LOCAL_BYTES or "@" in text:
        return False
    return text.isprintable() and not any(each.isspace() or each in '"(),:;<>[\\]' for each in text)


def _ascii_domain(domain: str) -> str:
    try:
        made = domain.rstrip(".").encode("idna").decode().lower()
    except UnicodeError:
        raise _bad() from None
    labels = made.split(".")
    if len(labels) < 2 or not all(_LABEL.fullmatch(each) for each in labels):
        raise _bad()
    return made


def _bad() -> BadRequestError:
    return BadRequestError("This is not an e-mail address.", param="address")
