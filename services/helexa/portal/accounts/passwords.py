# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Which passwords are taken. Pure.

Length is what counts, and that it is not among the first that anybody would try; no rules about
digits or signs. Source: NIST SP 800-63B, section 3.1.1.2.
"""

import unicodedata

from helexa.protocol.errors import BadRequestError

MIN_CHARACTERS = 10
MAX_CHARACTERS = 256
"""Hashing takes no longer for more; a bound keeps a request from being mostly password."""
MIN_DIFFERENT = 4
_COMMON = frozenset(
    """
    0987654321 0123456789 1234567890 12345678910 1111111111 123123123123 987654321
    abcdefghij abcdefghijk administrator asdfghjkl asdfghjkl; changeme123 computer123
    football123 iloveyou123 letmein123 letmeinplease mypassword mypassword1 p@ssw0rd123
    passw0rd123 password01 password10 password11 password12 password123 password1234
    password12345 passwordpassword princess123 q1w2e3r4t5 q1w2e3r4t5y6 qazwsxedcrfv
    qwerty1234 qwerty12345 qwerty123456 qwertyuiop qwertyuiop123 superman123 trustno1trustno1
    welcome123 welcome1234 zaq12wsxcde3 1q2w3e4r5t 1q2w3e4r5t6y 1qaz2wsx3edc
    correcthorsebatterystaple
    """.split()  # noqa: SIM905 - a table of words, not of quotes
)


def prepare(password: str) -> str:
    """Return the form of a password that is hashed, whatever keyboard it was typed on."""
    return unicodedata.normalize("NFKC", password)


def check_password(password: str, *, address: str, name: str = "") -> None:
    """Refuse a password that is too easy to guess.

    Args:
        password: As `prepare` returns it.
        address: The user's own, normalised: what it holds is known to others.
        name: The user's own.

    Raises:
        BadRequestError: it is not taken; the message says why.
    """
    if len(password) < MIN_CHARACTERS:
        raise _bad(f"The password has fewer than {MIN_CHARACTERS} characters.")
    if len(password) > MAX_CHARACTERS:
        raise _bad(f"The password has more than {MAX_CHARACTERS} characters.")
    lower = password.casefold()
    if len(set(lower)) < MIN_DIFFERENT:
        raise _bad("The password repeats a few characters.")
    if lower in _COMMON or lower in _known(address, name):
        raise _bad("This password is one of the first that others would try.")


def _known(address: str, name: str) -> set[str]:
    local, _, domain = address.partition("@")
    plain = {address, local, domain, name.casefold(), "".join(name.casefold().split())}
    return plain | {text * 2 for text in plain}


def _bad(text: str) -> BadRequestError:
    return BadRequestError(text, param="password")
