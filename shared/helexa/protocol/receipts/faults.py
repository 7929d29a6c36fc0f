# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Why a receipt, a claim or a settlement note is refused: each reason has a code of its own.

```
ReceiptError
├── ReceiptMalformedError        not a record of this type
├── ReceiptNonCanonicalError     another encoding of a record
├── ReceiptVersionError          a type or version that is not known here
├── UnknownPortalError           a portal that nothing is known of
├── ReceiptForgedError           signed with a key that is not the one it must be
├── ReceiptAlteredError          the right key, but it has not signed these bytes
├── ForeignReceiptError          it is somebody else's
├── ReceiptExpiredError          too old to be claimed
├── ReceiptFutureError           from later than now
├── ReceiptReplayedError         what it certifies is certified already
├── ReceiptForkedError           it contradicts another of the same portal
├── ReceiptGapError              one before it is missing
├── ReceiptTotalError            its total is not the one before and its amount
├── ReceiptPriceError            other prices than those agreed
├── ReceiptOverpaidError         more than the work costs
├── ReceiptUnderpaidError        less than the work costs
├── ReceiptUsageError            work that was not done, or not so
└── ClaimError                   a claim that cannot be made or met
    ├── NothingDueError          all is settled
    └── AlreadyClaimedError      these receipts are claimed already
```
"""

from helexa.protocol.errors import HelexaError
from helexa.protocol.messages.receipts import ForkProof


class ReceiptError(HelexaError):
    """The receipt is refused."""

    code = "receipt_refused"


class ReceiptMalformedError(ReceiptError):
    """This is not a record of the type that it must be."""

    code = "receipt_malformed"


class ReceiptNonCanonicalError(ReceiptError):
    """The record is not in canonical form."""

    code = "receipt_non_canonical"


class ReceiptVersionError(ReceiptError):
    """The record is of a type or version that is not known here."""

    code = "receipt_unknown_version"


class UnknownPortalError(ReceiptError):
    """Nothing is known of the portal that the record names."""

    code = "receipt_unknown_portal"


class ReceiptForgedError(ReceiptError):
    """The record is signed with a key that does not belong to whom it names."""

    code = "receipt_forged"


class ReceiptAlteredError(ReceiptError):
    """The signature is not over these bytes."""

    code = "receipt_altered"


class ForeignReceiptError(ReceiptError):
    """The record is for another provider or portal."""

    code = "receipt_foreign"


class ReceiptExpiredError(ReceiptError):
    """The receipt is too old to be claimed."""

    code = "receipt_expired"


class ReceiptFutureError(ReceiptError):
    """The record is from later than now and the 30 s by which clocks may differ."""

    code = "receipt_from_future"


class ReceiptReplayedError(ReceiptError):
    """What the record certifies is certified already."""

    code = "receipt_replayed"


class ReceiptForkedError(ReceiptError):
    """The portal has signed two receipts that cannot both be true."""

    code = "receipt_forked"

    def __init__(self, proof: ForkProof) -> None:
        """Keep the proof, which convinces anybody who knows the portal's key."""
        super().__init__()
        self.proof = proof


class ReceiptGapError(ReceiptError):
    """A receipt before this one is missing."""

    code = "receipt_gap"


class ReceiptTotalError(ReceiptError):
    """The cumulative total is not that of the receipt before and the amount."""

    code = "receipt_wrong_total"


class ReceiptPriceError(ReceiptError):
    """The receipt is made by other prices than those agreed."""

    code = "receipt_wrong_price"


class ReceiptOverpaidError(ReceiptError):
    """The receipt is about more than the work costs."""

    code = "receipt_over_amount"


class ReceiptUnderpaidError(ReceiptError):
    """The receipt is about less than the work costs."""

    code = "receipt_under_amount"


class ReceiptUsageError(ReceiptError):
    """The receipt is about work that was not done, or not so."""

    code = "receipt_unknown_usage"


class ClaimError(ReceiptError):
    """The claim cannot be made or met."""

    code = "claim_refused"


class NothingDueError(ClaimError):
    """All that was earned is settled."""

    code = "claim_nothing_due"


class AlreadyClaimedError(ClaimError):
    """These receipts are claimed already."""

    code = "claim_repeated"


def _all(root: type[ReceiptError]) -> dict[str, type[ReceiptError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _all(child)
    return found


FAULTS_BY_CODE = _all(ReceiptError)
"""Every reason by its code."""
