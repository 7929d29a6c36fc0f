# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Who may ask, and what they may spend."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from helexa.gateway.settings import GatewaySettings
from helexa.process.settings import SocketAddress
from helexa.protocol.errors import ForbiddenError, UnauthorizedError
from helexa.protocol.messages.accounts import ALL_SCOPES, Budget
from helexa.protocol.messages.execution import TokenUsage
from helexa.protocol.naming import digest_of
from helexa.site.connect import data_dir_of
from helexa.site.files import create_secret, read_secret
from helexa.site.keys import random_key

_log = logging.getLogger(__name__)

DEFAULT_PORTAL = "default"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request it is."""

    account: str = ""
    """Who pays, and with whom it shares what callers get when they wait: a user's id; of a key from
    settings its SHA-256, in hexadecimal; empty for who has none, where an open gateway lets them
    in."""
    portal: str = DEFAULT_PORTAL
    """Whose books the usage goes to."""
    yields: bool = False
    """Whether it goes after the others: it has no key, and others have one."""
    may_claim_priority: bool = True
    """Whether it may go before others by saying that it is urgent."""
    key: str = ""
    """SHA-256 of the key, where that is not the account."""
    key_id: str = ""
    """Names the key to its portal."""
    budget: Budget | None = None
    """What the key may spend, which is its portal's to see to."""
    scopes: frozenset[str] = frozenset(ALL_SCOPES)
    models: frozenset[str] | None = None
    """The only ones it may ask, by name or alias."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    @property
    def bearer(self) -> str:
        """SHA-256 of the key: whose answers these are."""
        return self.key or self.account

    def check_scope(self, scope: str) -> None:
        """Refuse what the key is not for.

        Raises:
            ForbiddenError: as said.
        """
        if scope not in self.scopes:
            raise ForbiddenError(
                f"The API key lacks the scope {scope!r}.", reason="insufficient_permissions"
            )

    def may_ask(self, *names: str) -> bool:
        """Whether it may ask the model with these names."""
        return self.models is None or not self.models.isdisjoint(names)

    def check_model(self, *names: str) -> None:
        """Refuse a model that the key is not for, as OpenAI does for keys of a project.

        Raises:
            ForbiddenError: as said.
        """
        if not self.may_ask(*names):
            raise ForbiddenError(
                f"The API key does not have access to the model {names[0]!r}.",
                param="model",
                reason="model_not_found",
            )


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

    async def authorise(self, key: str | None) -> Caller:
        """Return whose key this is.

        Raises:
            UnauthorizedError: it is missing, not known, or good for nothing any more.
            UnavailableError: keys cannot be checked now.
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

    async def authorise(self, key: str | None) -> Caller:
        """Return whose key this is. An open gateway knows its keys, and lets in anybody else."""
        caller = None if key is None else self.find(digest_of(key))
        return caller or self.let_in(key, others_have_keys=False)

    def find(self, digest: str) -> Caller | None:
        """Return whose key has this digest."""
        # A look-up, whose time may tell something of a digest, and not a comparison with every one
        # in constant time: a digest does not lead to its key, which is long and random.
        return self._callers.get(digest)

    def let_in(self, key: str | None, *, others_have_keys: bool) -> Caller:
        """Return who somebody is whose key, if any, is not known.

        Raises:
            UnauthorizedError: the gateway is not open.
        """
        if self.is_open:
            return STRANGER if self._callers or others_have_keys else ANYBODY
        if key is None:
            raise UnauthorizedError(
                "No API key was given. Send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'."
            )
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
        digests.append(digest_of(read_secret(path)))
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
        return digest_of(key)
    return digest_of(read_secret(path))
