# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Who may ask, and what they may spend."""

import hashlib
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from helexa.gateway.settings import GatewaySettings
from helexa.process.settings import SocketAddress
from helexa.protocol.errors import UnauthorizedError
from helexa.protocol.messages.execution import TokenUsage
from helexa.site.connect import data_dir_of
from helexa.site.files import create_secret, read_secret
from helexa.site.keys import random_key

_log = logging.getLogger(__name__)

DEFAULT_PORTAL = "default"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request it is."""

    account: str = ""
    """SHA-256 of the key, in hexadecimal; empty for who has none: an open gateway lets them in."""
    portal: str = DEFAULT_PORTAL
    """Whose books the usage goes to."""
    yields: bool = False
    """Whether it goes after the others: it has no key, and others have one."""
    may_claim_priority: bool = True
    """Whether it may go before others by saying that it is urgent."""


ANYBODY = Caller()
"""Who asks a gateway that has no keys."""
STRANGER = Caller(yields=True, may_claim_priority=False)
"""Who has no key where others have one."""


class Claim(NamedTuple):
    """What a request may cost at most."""

    request_id: str
    model: str
    prompt_tokens: int
    max_tokens: int | None
    choices: int


class Authority(Protocol):
    """Says who a caller is, and sets aside what a request may cost."""

    def authorise(self, key: str | None) -> Caller:
        """Return whose key this is.

        Raises:
            UnauthorizedError: it is missing or not known.
        """

    async def hold(self, caller: Caller, claim: Claim) -> None:
        """Set aside the cost of a request before any work is done for it.

        Raises:
            ForbiddenError: the caller may not do this.
            UnavailableError: the books cannot be reached.
        """

    async def settle(self, caller: Caller, claim: Claim, usage: TokenUsage | None) -> None:
        """Close the hold; `None`: no neuron has told what was used."""


class SettingsAuthority:
    """Keys from settings; every hold succeeds."""

    def __init__(self, digests: tuple[str, ...], *, is_open: bool) -> None:
        """Accept the keys with these digests, and anybody where `is_open`."""
        self._callers = {digest: Caller(account=digest) for digest in digests}
        self.is_open = is_open

    def authorise(self, key: str | None) -> Caller:
        """Return whose key this is. An open gateway knows its keys, and lets in anybody else."""
        if self.is_open and not self._callers:
            return ANYBODY
        if key is None and not self.is_open:
            raise UnauthorizedError(
                "No API key was given. Send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'."
            )
        digest = hashlib.sha256((key or "").encode()).hexdigest()
        # A look-up, whose time may tell something of a digest, and not a comparison with every one
        # in constant time: a digest does not lead to its key, which is long and random.
        caller = self._callers.get(digest)
        if caller is not None:
            return caller
        if self.is_open:
            return STRANGER
        raise UnauthorizedError("The API key is not known here.")

    async def hold(self, caller: Caller, claim: Claim) -> None:
        """Set nothing aside: there are no balances."""

    async def settle(self, caller: Caller, claim: Claim, usage: TokenUsage | None) -> None:
        """Close nothing."""


def settings_authority(settings: GatewaySettings) -> SettingsAuthority:
    """Return the authority that `settings` describe; makes a key where one is needed and missing.

    Raises:
        SettingsError: the key file cannot be used.
    """
    digests = list(settings.api_keys)
    path = settings.api_key_file or data_dir_of(settings).gateway_key
    if settings.api_key_file is not None or (not digests and path.exists()):
        digests.append(_digest_of(read_secret(path)))
    loopback = SocketAddress.parse(settings.socket).is_loopback
    is_open = (loopback and not digests) if settings.open is None else settings.open
    if is_open:
        _log.warning("gateway_is_open", extra={"socket": settings.socket, "loopback": loopback})
    elif not digests:
        digests.append(_first_key(path))
    return SettingsAuthority(tuple(digests), is_open=is_open)


def _first_key(path: Path) -> str:
    key = random_key()
    if create_secret(path, key + "\n"):
        sys.stdout.write(f"API key of this gateway (shown once, kept in {path}):\n{key}\n")
        sys.stdout.flush()
        return _digest_of(key)
    return _digest_of(read_secret(path))


def _digest_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
