# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Secrets sent to an address: whoever shows one reads what is sent there."""

from helexa.bus.buckets import Bucket, Entry
from helexa.bus.client import Bus
from helexa.portal.accounts.minting import mint_secret
from helexa.portal.accounts.users import NOBODY
from helexa.protocol import resources
from helexa.protocol.errors import BadRequestError, ConflictError
from helexa.protocol.messages.accounts import Challenge, ChallengePurpose, User
from helexa.protocol.naming import digest_of

LASTS_S = {ChallengePurpose.VERIFY: resources.CHALLENGE_S, ChallengePurpose.RESET: 3600.0}
"""How long each is good for."""


class Challenges:
    """The challenges of a site. Methods raise `UnavailableError` where they cannot be reached."""

    def __init__(self, bus: Bus) -> None:
        """Keep them in the site's bucket, where they expire."""
        self._kept = Bucket(bus, resources.CHALLENGES, Challenge)

    async def issue(self, user: User | None, purpose: str, now_ms: int) -> str:
        """Return a new secret for `user`; one for nobody takes as long and is good for nothing."""
        minted = mint_secret()
        challenge = Challenge(
            user_id=user.user_id if user else NOBODY,
            purpose=purpose,
            password_edition=user.password_edition if user else 0,
            expires_ms=now_ms + round(LASTS_S[purpose] * 1000),
        )
        await self._kept.replace(minted.digest, challenge, None)
        return minted.secret

    async def look(self, secret: str, purpose: str, now_ms: int) -> Entry[Challenge]:
        """Return the challenge with this secret, which stays as it is.

        Raises:
            BadRequestError: there is none, or it is good for nothing any more.
        """
        found = await self._kept.get(digest_of(secret))
        if found is None or not _is_good(found.value, purpose, now_ms):
            raise spent()
        return found

    async def use(self, secret: str, found: Entry[Challenge]) -> None:
        """Use up a challenge. Of several who try at once, one does.

        Raises:
            BadRequestError: somebody else has.
        """
        used = found.value.model_copy(update={"used": True})
        try:
            await self._kept.replace(digest_of(secret), used, found.revision)
        except ConflictError:
            raise spent() from None


def _is_good(challenge: Challenge, purpose: str, now_ms: int) -> bool:
    return challenge.purpose == purpose and not challenge.used and now_ms < challenge.expires_ms


def spent() -> BadRequestError:
    """Return the refusal of a challenge, whatever is wrong with it."""
    return BadRequestError(
        "This link has been used or is too old. Ask for a new one.", param="token"
    )
