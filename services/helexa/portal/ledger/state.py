# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The state of a ledger: what its entries add up to. Pure; changed by `apply` alone."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from helexa.portal.ledger.accounts import AccountError, check_balance
from helexa.portal.ledger.entries import Entry, EntryError, check_entry
from helexa.portal.ledger.items import (
    Item,
    Limit,
    LiveGrant,
    OpenHold,
    OpenPayout,
    Reversed,
    grant_name,
    hold_name,
    limit_name,
    payout_name,
    reversed_name,
)

NO_HASH = bytes(32)


@dataclass(frozen=True, slots=True)
class Head:
    """The last block of a chain."""

    number: int = 0
    """Blocks so far; the first has number 1."""
    hash: bytes = NO_HASH
    time_ms: int = 0
    """When it was made, by the clock of whoever made it; never less than the one before."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What has changed since the changes were last taken."""

    balances: Mapping[str, int]
    """The new balances of the accounts that were touched."""
    items: Mapping[str, Item | None]
    """What stands open anew; `None` for what is closed."""


Archive = Callable[[str], Entry | None]
"""Finds a command's entry among those that the state does not keep itself."""


def _nothing(_: str) -> None:
    return None


@dataclass(slots=True)
class State:
    """Balances, open items, the entries of past commands, and the chain's head."""

    head: Head = field(default_factory=Head)
    balances: dict[str, int] = field(default_factory=dict)
    """Without those of zero."""
    items: dict[str, Item] = field(default_factory=dict)
    recent: dict[str, Entry] = field(default_factory=dict)
    """Entries by their command's id, until an archive has them."""
    archive: Archive = field(default=_nothing, compare=False)
    _grants: dict[tuple[str, str], set[str]] = field(default_factory=dict, compare=False)
    _touched_accounts: set[str] = field(default_factory=set, compare=False)
    _touched_items: set[str] = field(default_factory=set, compare=False)

    def balance(self, account: str) -> int:
        """Return what is in an account."""
        return self.balances.get(account, 0)

    def find(self, command_id: str) -> Entry | None:
        """Return the entry of a command that was entered before."""
        return self.recent.get(command_id) or self.archive(command_id)

    def hold(self, hold: str) -> OpenHold | None:
        """Return a hold that is open."""
        found = self.items.get(hold_name(hold))
        return found if isinstance(found, OpenHold) else None

    def grant(self, grant: str) -> LiveGrant | None:
        """Return a grant that has not been expired."""
        found = self.items.get(grant_name(grant))
        return found if isinstance(found, LiveGrant) else None

    def grants(self, user: str, currency: str) -> list[tuple[str, LiveGrant]]:
        """Return a user's grants with their ids, the one that expires first at the front."""
        found = [
            (grant, live)
            for grant in self._grants.get((user, currency), ())
            if (live := self.grant(grant)) is not None
        ]
        return sorted(found, key=lambda each: (each[1].expires_at_ms, each[0]))

    def payout(self, payout: str) -> OpenPayout | None:
        """Return a payout that is under way."""
        found = self.items.get(payout_name(payout))
        return found if isinstance(found, OpenPayout) else None

    def reversed_of(self, deposit: str) -> int:
        """Return how much of a deposit, by its command's id, has gone back."""
        found = self.items.get(reversed_name(deposit))
        return found.amount if isinstance(found, Reversed) else 0

    def limit(self, api_key: str, window: str, currency: str) -> int | None:
        """Return what a key may use in each such period, or `None` without a limit."""
        found = self.items.get(limit_name(api_key, window, currency))
        return found.amount if isinstance(found, Limit) else None

    def expired_holds(self, time_ms: int) -> Iterator[tuple[str, OpenHold]]:
        """Yield the holds whose time is over, with their ids."""
        for name, item in self.items.items():
            if isinstance(item, OpenHold) and item.expires_at_ms <= time_ms:
                yield name.partition(":")[2], item

    def expired_grants(self, time_ms: int) -> Iterator[str]:
        """Yield the grants whose time is over."""
        for name, item in self.items.items():
            if isinstance(item, LiveGrant) and item.expires_at_ms <= time_ms:
                yield name.partition(":")[2]

    def apply(self, entry: Entry) -> None:
        """Enter `entry`; nothing changes if it cannot be.

        Raises:
            EntryError: it breaks a rule that every entry keeps.
        """
        check_entry(entry)
        if entry.id in self.recent:
            raise EntryError(f"{entry.id} is entered twice")
        if missing := [name for name in entry.closed if name not in self.items]:
            raise EntryError(f"{entry.id}: {missing[0]} is not open")
        balances = {name: self.balance(name) + amount for name, amount in entry.postings}
        for name, balance in balances.items():
            try:
                check_balance(name, balance)
            except AccountError as error:
                raise EntryError(f"{entry.id}: {error}") from error
        for name, balance in balances.items():
            self._set_balance(name, balance)
        for name in entry.closed:
            self._set_item(name, None)
        for name, item in entry.opened.items():
            self._set_item(name, item)
        self.recent[entry.id] = entry

    def load(self, balances: Mapping[str, int], items: Mapping[str, Item], head: Head) -> None:
        """Take over what was kept of another state; its past entries are in the archive."""
        self.head = head
        for name, balance in balances.items():
            self._set_balance(name, balance)
        for name, item in items.items():
            self._set_item(name, item)
        self.take_changes()

    def take_changes(self) -> Changes:
        """Return what has changed since this was last called."""
        changes = Changes(
            {name: self.balance(name) for name in self._touched_accounts},
            {name: self.items.get(name) for name in self._touched_items},
        )
        self._touched_accounts.clear()
        self._touched_items.clear()
        return changes

    def archived(self, entries: Iterable[Entry]) -> None:
        """Forget entries that the archive has from now on."""
        for entry in entries:
            self.recent.pop(entry.id, None)

    def _set_balance(self, name: str, balance: int) -> None:
        self._touched_accounts.add(name)
        if balance:
            self.balances[name] = balance
        else:
            self.balances.pop(name, None)

    def _set_item(self, name: str, item: Item | None) -> None:
        self._touched_items.add(name)
        held = self.items.get(name) if item is None else item
        if isinstance(held, LiveGrant):
            grants = self._grants.setdefault((held.user, held.currency), set())
            grant = name.partition(":")[2]
            grants.discard(grant) if item is None else grants.add(grant)
        if item is None:
            self.items.pop(name, None)
        else:
            self.items[name] = item
