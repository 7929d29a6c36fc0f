# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a user may ask of an API key. Pure."""

import re
from dataclasses import dataclass

from helexa.protocol.errors import BadRequestError
from helexa.protocol.messages.accounts import (
    ALL_SCOPES,
    BUDGET_PERIODS,
    Budget,
    KeyGrant,
    User,
)

MAX_NAME_CHARACTERS = 100
MAX_MODELS = 100
MAX_KEYS = 100
"""Of one user, those that are revoked not counted."""
MAX_KEPT = 1000
"""Of one user, those that are revoked included; the oldest of these are forgotten."""
_CURRENCY = re.compile(r"[A-Z]{3,5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTerms:
    """What a key shall be good for; the fields are those of `KeyGrant`."""

    name: str = ""
    expires_ms: int | None = None
    scopes: tuple[str, ...] = ALL_SCOPES
    models: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    budget: Budget | None = None
    may_claim_priority: bool = True
    yields: bool = False

    def check(self, now_ms: int) -> None:
        """Refuse terms that mean nothing.

        Raises:
            BadRequestError: as said; it names the field.
        """
        _check(len(self.name) <= MAX_NAME_CHARACTERS and self.name.isprintable(), "name")
        _check(self.expires_ms is None or self.expires_ms > now_ms, "expires_ms")
        _check(bool(self.scopes) and not set(self.scopes) - set(ALL_SCOPES), "scopes")
        _check(self.models is None or _are_models(self.models), "models")
        _check(_is_limit(self.requests_per_minute), "requests_per_minute")
        _check(_is_limit(self.tokens_per_minute), "tokens_per_minute")
        _check(self.budget is None or _is_budget(self.budget), "budget")


def grant_of(user: User, key_id: str, hint: str, terms: KeyTerms, now_ms: int) -> KeyGrant:
    """Return the record of a new key."""
    made = KeyGrant(
        key_id=key_id, account=user.user_id, portal=user.portal, hint=hint, created_ms=now_ms
    )
    return with_terms(made, terms)


def with_terms(grant: KeyGrant, terms: KeyTerms) -> KeyGrant:
    """Return `grant` with other terms."""
    return grant.model_copy(
        update={
            "name": terms.name,
            "expires_ms": terms.expires_ms,
            "scopes": tuple(dict.fromkeys(terms.scopes)),
            "models": terms.models,
            "requests_per_minute": terms.requests_per_minute,
            "tokens_per_minute": terms.tokens_per_minute,
            "budget": terms.budget,
            "may_claim_priority": terms.may_claim_priority,
            "yields": terms.yields,
        }
    )


def revoked(grant: KeyGrant, now_ms: int) -> KeyGrant:
    """Return `grant` as one that is good for nothing from now on; the first time counts."""
    if grant.revoked_ms is not None:
        return grant
    return grant.model_copy(update={"revoked_ms": now_ms})


def _is_limit(limit: int | None) -> bool:
    return limit is None or limit > 0


def _are_models(models: tuple[str, ...]) -> bool:
    return 0 < len(models) <= MAX_MODELS and all(each.strip() for each in models)


def _is_budget(budget: Budget) -> bool:
    known = budget.period in BUDGET_PERIODS and _CURRENCY.fullmatch(budget.currency)
    return bool(known) and budget.amount > 0


def _check(holds: bool, field: str) -> None:  # noqa: FBT001 - what is checked, and its name
    if not holds:
        raise BadRequestError(f"{field!r} is not valid.", param=field)
