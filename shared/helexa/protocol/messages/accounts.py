# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What is kept of people, of how they prove who they are, and of their API keys.

`KeyGrant` is for gateways. The rest is for the portals of a site alone.
"""

from helexa.protocol.messages.base import Message, Record


class Scope:
    """What a key may be used for. The set may grow."""

    INFERENCE = "inference"
    """To ask models, and to read the rest of an answer."""
    MODELS = "models"
    """To list models."""
    USAGE = "usage"
    """To read what has been used and what is left."""


ALL_SCOPES = (Scope.INFERENCE, Scope.MODELS, Scope.USAGE)


class BudgetPeriod:
    """How often a budget begins anew, in UTC. The set may grow."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    TOTAL = "total"
    """Never."""


BUDGET_PERIODS = (BudgetPeriod.DAY, BudgetPeriod.WEEK, BudgetPeriod.MONTH, BudgetPeriod.TOTAL)


class Budget(Record):
    """What a key may spend in a period."""

    amount: int
    """In millionths of the currency."""
    currency: str
    period: str = BudgetPeriod.MONTH
    """A `BudgetPeriod`."""


class KeyGrant(Record):
    """What an API key is good for; kept under its SHA-256 digest, in hexadecimal."""

    key_id: str
    """Names the key where its secret must not be shown."""
    account: str
    """The id of the user who pays."""
    portal: str
    """Whose books the usage goes to."""
    name: str = ""
    hint: str = ""
    """The last characters of the secret."""
    created_ms: int = 0
    expires_ms: int | None = None
    """Unix time from which on the key is good for nothing."""
    scopes: tuple[str, ...] = ALL_SCOPES
    models: tuple[str, ...] | None = None
    """The only models that it may be used for, by name or alias; `None`: all."""
    requests_per_minute: int | None = None
    """Over all gateways of the site."""
    tokens_per_minute: int | None = None
    """Of prompts and answers together, over all gateways of the site."""
    budget: Budget | None = None
    may_claim_priority: bool = True
    """Whether its requests may go before others by saying that they are urgent."""
    yields: bool = False
    """Whether its requests go after those of all others."""
    suspended: bool = False
    """Good for nothing for now, because its account is."""
    revoked_ms: int | None = None
    """Unix time from which on it is good for nothing, for ever."""


class KeyUse(Message):
    """What a gateway has let through of what a limit of a key allows."""

    key: str
    """SHA-256 of the key, in hexadecimal."""
    kind: str
    """`requests` or `tokens`."""
    limit: int
    """In a minute, over all gateways."""
    amount: int
    """Negative where more was set aside before than was used."""


class KeyUses(Message):
    """What a gateway has let through since it last told the others."""

    gateway: str
    uses: tuple[KeyUse, ...]


class UserRole:
    """What a user may do at a portal. The set may grow."""

    USER = "user"
    ADMIN = "admin"
    """Manages the users of one portal."""
    OPERATOR = "operator"
    """Manages the site."""


class UserStatus:
    """Whether a user may log in. The set may grow."""

    UNVERIFIED = "unverified"
    """Nobody has shown yet that the address is theirs."""
    ACTIVE = "active"
    SUSPENDED = "suspended"


class User(Record):
    """A person at a portal; kept under the user's id."""

    user_id: str
    portal: str
    address: str
    """Their e-mail address, normalised."""
    name: str = ""
    password_hash: str
    """By argon2id, with its salt and parameters."""
    roles: tuple[str, ...] = (UserRole.USER,)
    status: str = UserStatus.UNVERIFIED
    created_ms: int = 0
    password_edition: int = 0
    """Rises with each new password; what refers to an older one is void."""


class AddressClaim(Record):
    """Whose address it is; kept under a digest of the portal and the address."""

    user_id: str
    claimed_ms: int = 0


class Session(Record):
    """Somebody who is logged in; kept under the SHA-256 digest of the session's secret."""

    user_id: str
    portal: str
    password_edition: int
    """The user's own, when they logged in."""
    created_ms: int
    expires_ms: int


class ChallengePurpose:
    """What a challenge lets its bearer do. The set may grow."""

    VERIFY = "verify"
    RESET = "reset"


class Challenge(Record):
    """A secret sent to an address, to be shown once; kept under its SHA-256 digest."""

    user_id: str
    purpose: str
    """A `ChallengePurpose`."""
    password_edition: int
    """The user's own, when it was sent."""
    expires_ms: int
    used: bool = False
