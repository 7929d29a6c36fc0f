# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What can be wrong with a ledger as a whole, which no command can mend.

These errors never cross the bus. A process that meets one ends as for a wrong setting: to start it
again changes nothing.
"""

from helexa.process.settings import SettingsError


class LedgerError(SettingsError):
    """The ledger cannot be used."""


class DamagedError(LedgerError):
    """What is kept does not agree with itself."""


class ProjectionVersionError(LedgerError):
    """The projection was written by another version of the software."""


class LedgerInUseError(LedgerError):
    """Another process has the projection."""


class JournalBehindError(LedgerError):
    """The journal lacks blocks that the projection has: a server has lost acknowledged data."""


class JournalForkedError(LedgerError):
    """The journal's blocks are not the ones that the projection has."""
