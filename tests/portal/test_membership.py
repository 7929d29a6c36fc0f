# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""People at portals of several replicas, which share nothing but the site's buckets."""

import asyncio
import json
import stat
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.bus.resources import Durability, ensure_resources
from helexa.portal.accounts.audit import Audit
from helexa.portal.accounts.gates import GateRates
from helexa.portal.accounts.hashing import Hasher
from helexa.portal.accounts.keys import ApiKeys
from helexa.portal.accounts.letters import Letter, LetterFile, LetterKind
from helexa.portal.accounts.management import Management
from helexa.portal.accounts.membership import Customs, Membership
from helexa.portal.accounts.terms import MAX_KEYS, KeyTerms
from helexa.process.rates import Rate
from helexa.protocol import subjects
from helexa.protocol.errors import (
    BadRequestError,
    ForbiddenError,
    HelexaError,
    NotFoundError,
    RateLimitedError,
    UnauthorizedError,
)
from helexa.protocol.messages.accounts import KeyGrant, User
from helexa.protocol.messages.events import StateEvent
from helexa.protocol.naming import digest_of, random_id
from helexa.protocol.subjects import Role

PASSWORD = "seven green pears"
OTHER = "eleven blue plums"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
ANY = GateRates(Rate(1e6, 1), Rate(1e6, 1))


@dataclass
class Letters:
    """Keeps what would be delivered."""

    sent: list[Letter] = field(default_factory=list)

    def post(self, letter: Letter) -> None:
        self.sent.append(letter)

    def kinds(self, address: str) -> list[LetterKind]:
        return [each.kind for each in self.sent if each.address == address]

    def secret(self, address: str) -> str:
        return [each.secret for each in self.sent if each.address == address][-1]


@dataclass
class Replica:
    """One replica of a portal."""

    bus: Bus
    portal: str
    letters: Letters
    people: Membership
    keys: ApiKeys
    management: Management

    async def member(self, address: str, password: str = PASSWORD) -> User:
        """Return a user who has shown that the address is theirs."""
        await self.people.sign_up(address, password, client="c")
        return (await self.people.verify(self.letters.secret(address), password)).user


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    async with Bus(Connection((nats_url,), "portals")) as made:
        for role in (Role.PROVISIONER, Role.PORTAL):
            await ensure_resources(made, role, Durability())
        yield made


def replica(bus: Bus, portal: str = "default", **customs: object) -> Replica:
    letters, audit, keys = Letters(), Audit(bus), ApiKeys(bus, Audit(bus))
    given = {"portal": portal, "sign_up": ANY, "log_in": ANY} | customs
    people = Membership(bus, Customs(**given), Hasher(CHEAP), letters, audit)  # type: ignore[arg-type]
    return Replica(bus, portal, letters, people, keys, Management(people.users, keys, audit))


@pytest.fixture
async def one(bus: Bus) -> AsyncIterator[Replica]:
    made = replica(bus)
    following = asyncio.create_task(made.keys.run())
    await until_fresh(made.keys)
    yield made
    following.cancel()


@pytest.fixture
async def two(nats_url: str) -> AsyncIterator[Replica]:
    async with Bus(Connection((nats_url,), "another portal")) as made:
        await made.wait_connected()
        second = replica(made)
        following = asyncio.create_task(second.keys.run())
        await until_fresh(second.keys)
        yield second
        following.cancel()


async def until_fresh(keys: ApiKeys) -> None:
    async with asyncio.timeout(20):
        while not keys.is_fresh:
            await asyncio.sleep(0.01)


def new_address() -> str:
    return f"{random_id(60)}@example.org"


async def test_who_signs_up_shows_that_the_address_is_theirs_and_is_logged_in(
    one: Replica, two: Replica
) -> None:
    address = new_address()
    await one.people.sign_up(address.upper(), PASSWORD, name="Ada", client="c")
    assert one.letters.kinds(address) == [LetterKind.VERIFY]
    with pytest.raises(ForbiddenError) as caught:
        await two.people.log_in(address, PASSWORD, client="c")
    assert caught.value.details["reason"] == "unverified"
    secret = one.letters.secret(address)
    with pytest.raises(UnauthorizedError):
        await two.people.verify(secret, "a wrong password")
    opened = await two.people.verify(secret, PASSWORD)
    assert (await one.people.who(opened.secret)).user.address == address
    with pytest.raises(BadRequestError):
        await two.people.verify(secret, PASSWORD)
    again = await one.people.log_in(f" {address.title()}", PASSWORD, client="c")
    assert again.user.user_id == opened.user.user_id
    assert again.secret != opened.secret
    assert PASSWORD not in again.user.password_hash


async def test_of_two_sign_ups_of_one_address_one_wins_and_both_hear_the_same(
    one: Replica, two: Replica
) -> None:
    address = new_address()
    await one.member(address)
    await asyncio.gather(*(each.people.sign_up(address, OTHER, client="c") for each in (one, two)))
    assert one.letters.kinds(address)[1:] == two.letters.kinds(address) == [LetterKind.KNOWN]
    await one.people.log_in(address, PASSWORD, client="c")
    fresh = new_address()
    tries = [(each, f"password of {n}") for n, each in enumerate((one, two) * 4)]
    await asyncio.gather(*(each.people.sign_up(fresh, text, client="c") for each, text in tries))
    found = await one.people.users.at("default", fresh)
    assert found is not None
    secrets = [each.secret for r in (one, two) for each in r.letters.sent if each.address == fresh]
    good = [await verdict(one, secret, text) for secret in secrets if secret for _, text in tries]
    assert good.count("verified") == 1


async def verdict(at: Replica, secret: str, password: str) -> str:
    try:
        opened = await at.people.verify(secret, password)
    except HelexaError as error:
        return error.code
    assert opened.user.status == "active"
    return "verified"


async def test_who_signs_up_again_before_showing_the_address_starts_over(one: Replica) -> None:
    address = new_address()
    await one.people.sign_up(address, OTHER, client="a stranger")
    strangers = one.letters.secret(address)
    await one.people.sign_up(address, PASSWORD, client="the owner")
    for secret, password in ((strangers, OTHER), (strangers, PASSWORD)):
        with pytest.raises(BadRequestError):
            await one.people.verify(secret, password)
    with pytest.raises(UnauthorizedError):
        await one.people.verify(one.letters.secret(address), OTHER)
    opened = await one.people.verify(one.letters.secret(address), PASSWORD)
    assert opened.user.address == address


async def test_an_address_has_an_account_at_each_portal(bus: Bus, one: Replica) -> None:
    address = new_address()
    await one.member(address)
    other = replica(bus, "other")
    with pytest.raises(UnauthorizedError):
        await other.people.log_in(address, PASSWORD, client="c")
    await other.member(address, OTHER)
    opened = await other.people.log_in(address, OTHER, client="c")
    with pytest.raises(UnauthorizedError):
        await one.people.who(opened.secret)


async def test_a_wrong_password_and_an_unknown_address_are_told_in_the_same_words_and_time(
    bus: Bus, one: Replica
) -> None:
    address = new_address()
    await one.member(address)
    slow = replica(bus)
    slow.people = Membership(
        bus,
        Customs(sign_up=ANY, log_in=ANY),
        Hasher(PasswordHasher(time_cost=2, memory_cost=16_384, parallelism=1)),
        slow.letters,
        Audit(bus),
    )
    await slow.people.log_in(address, PASSWORD, client="c")
    told: dict[str, set[str]] = {}
    took: dict[str, list[float]] = {}
    for _ in range(9):
        for given in (address, new_address(), "no address"):
            began = time.process_time()
            with pytest.raises(UnauthorizedError) as caught:
                await slow.people.log_in(given, "a wrong password", client="c")
            kind = "known" if given == address else "unknown"
            took.setdefault(kind, []).append(time.process_time() - began)
            told.setdefault(kind, set()).add(caught.value.message)
    assert told["known"] == told["unknown"]
    assert len(told["known"]) == 1
    known, unknown = (sorted(took[kind])[len(took[kind]) // 2] for kind in ("known", "unknown"))
    assert 0.5 < known / unknown < 2


async def test_a_hash_of_old_parameters_is_made_anew_at_the_next_log_in(
    bus: Bus, one: Replica
) -> None:
    address = new_address()
    user = await one.member(address)
    newer = Membership(
        bus,
        Customs(sign_up=ANY, log_in=ANY),
        Hasher(PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)),
        one.letters,
        Audit(bus),
    )
    opened = await newer.log_in(address, PASSWORD, client="c")
    found = await one.people.users.find(user.user_id)
    assert found is not None
    assert "m=16,t=2" in found.password_hash
    assert found.password_hash.startswith("$argon2id$")
    assert (await one.people.who(opened.secret)).user.password_edition == user.password_edition


async def test_a_new_password_ends_the_other_sessions(one: Replica, two: Replica) -> None:
    address = new_address()
    await one.member(address)
    mine = await one.people.log_in(address, PASSWORD, client="c")
    other = await two.people.log_in(address, PASSWORD, client="c")
    with pytest.raises(UnauthorizedError):
        await one.people.change_password(mine.secret, "a wrong password", OTHER)
    with pytest.raises(BadRequestError):
        await one.people.change_password(mine.secret, PASSWORD, "short")
    await two.people.who(mine.secret)
    changed = await one.people.change_password(mine.secret, PASSWORD, OTHER)
    for secret in (mine.secret, other.secret):
        with pytest.raises(UnauthorizedError):
            await two.people.who(secret)
    assert (await two.people.who(changed.secret)).user.address == address
    with pytest.raises(UnauthorizedError):
        await two.people.log_in(address, PASSWORD, client="c")
    await two.people.log_in(address, OTHER, client="c")
    assert one.letters.kinds(address)[-1] == LetterKind.PASSWORD_CHANGED


async def test_who_logs_out_is_out_everywhere(one: Replica, two: Replica) -> None:
    address = new_address()
    await one.member(address)
    mine = await one.people.log_in(address, PASSWORD, client="c")
    await two.people.log_out(mine.secret)
    await two.people.log_out(mine.secret)
    with pytest.raises(UnauthorizedError):
        await one.people.who(mine.secret)
    with pytest.raises(UnauthorizedError):
        await one.people.who("")


async def test_a_password_is_reset_by_a_secret_that_works_once(one: Replica, two: Replica) -> None:
    address = new_address()
    await one.member(address)
    mine = await one.people.log_in(address, PASSWORD, client="c")
    await one.people.ask_reset(address, client="c")
    first = one.letters.secret(address)
    await one.people.ask_reset(address, client="c")
    secret = one.letters.secret(address)
    with pytest.raises(BadRequestError):
        await two.people.reset(secret, "short")
    with pytest.raises(BadRequestError):
        await two.people.verify(secret, PASSWORD)
    told = await asyncio.gather(
        *(each.people.reset(secret, OTHER) for each in (one, two)), return_exceptions=True
    )
    assert sorted(str(type(each).__name__) for each in told) == ["BadRequestError", "NoneType"]
    for spent in (secret, first, "never issued"):
        with pytest.raises(BadRequestError):
            await one.people.reset(spent, "yet another one")
    with pytest.raises(UnauthorizedError):
        await one.people.who(mine.secret)
    await one.people.log_in(address, OTHER, client="c")


async def test_a_reset_for_nobody_says_and_sends_nothing(one: Replica) -> None:
    address = new_address()
    await one.people.ask_reset(address, client="c")
    assert one.letters.kinds(address) == []


async def test_tries_are_limited_by_address_and_by_client_alike_for_everybody(bus: Bus) -> None:
    rates = GateRates(of_address=Rate(3, 0.01), of_client=Rate(5, 0.01))
    made = replica(bus, log_in=rates)
    known = new_address()
    await made.member(known)
    for address in (known, new_address()):
        answers = [await told(made, address, f"client {n}") for n in range(5)]
        # To verify has been a try too.
        right = 2 if address == known else 3
        assert answers == ["unauthorized"] * right + ["rate_limit_exceeded"] * (5 - right)
    answers = [await told(made, new_address(), "one client") for _ in range(7)]
    assert answers == ["unauthorized"] * 5 + ["rate_limit_exceeded"] * 2
    with pytest.raises(RateLimitedError) as caught:
        await made.people.log_in(new_address(), PASSWORD, client="one client")
    assert caught.value.retry_after_s == pytest.approx(100, abs=20)


async def told(at: Replica, address: str, client: str) -> str:
    try:
        await at.people.log_in(address, "a wrong password", client=client)
    except HelexaError as error:
        return error.code
    return ""


async def test_a_key_is_shown_once_and_known_at_every_replica(one: Replica, two: Replica) -> None:
    user = await one.member(new_address())
    made = await one.keys.create(user, KeyTerms(name="laptop", models=("m",)))
    assert made.secret.startswith("sk-hx-")
    assert made.secret not in made.grant.model_dump_json()
    assert digest_of(made.secret) not in made.grant.model_dump_json()
    assert one.keys.list(user.user_id) == [made.grant]
    await until_listed(two, user.user_id, 1)
    assert two.keys.list(user.user_id) == [made.grant]
    changed = await two.keys.change(user.user_id, made.grant.key_id, KeyTerms(name="phone"))
    assert (changed.name, changed.models) == ("phone", None)
    ended = await one.keys.revoke(user.user_id, made.grant.key_id)
    assert ended.revoked_ms is not None
    assert (ended.name, ended.key_id) == ("phone", made.grant.key_id)
    with pytest.raises(NotFoundError):
        await two.keys.change(user.user_id, made.grant.key_id, KeyTerms())
    assert (await two.keys.revoke(user.user_id, made.grant.key_id)).revoked_ms == ended.revoked_ms


async def until_listed(at: Replica, account: str, count: int) -> None:
    async with asyncio.timeout(20):
        while len(at.keys.list(account)) != count:
            await asyncio.sleep(0.01)


async def test_nobody_reaches_the_keys_of_others(one: Replica) -> None:
    ada, bea = await one.member(new_address()), await one.member(new_address())
    made = await one.keys.create(ada, KeyTerms())
    assert one.keys.list(bea.user_id) == []
    for key_id in (made.grant.key_id, "key_none", digest_of(made.secret)):
        with pytest.raises(NotFoundError):
            await one.keys.revoke(bea.user_id, key_id)
    assert one.keys.list(ada.user_id)[0].revoked_ms is None


async def test_changes_at_two_replicas_at_once_are_all_kept(one: Replica, two: Replica) -> None:
    user = await one.member(new_address())
    made = await one.keys.create(user, KeyTerms())
    await until_listed(two, user.user_id, 1)
    key_id = made.grant.key_id
    await asyncio.gather(
        one.keys.revoke(user.user_id, key_id),
        *(each.keys.suspend(user.user_id, suspended=True) for each in (one, two)),
        two.management.make_operator(user.user_id),
    )
    found = await one.keys.revoke(user.user_id, key_id)
    assert found.suspended
    assert found.revoked_ms is not None


async def test_a_user_has_a_bounded_number_of_keys(one: Replica) -> None:
    user = await one.member(new_address())
    for _ in range(MAX_KEYS):
        await one.keys.create(user, KeyTerms())
    with pytest.raises(ForbiddenError):
        await one.keys.create(user, KeyTerms())
    await one.keys.revoke(user.user_id, one.keys.list(user.user_id)[0].key_id)
    await one.keys.create(user, KeyTerms())


async def test_who_is_suspended_is_out_with_all_keys_until_it_is_undone(one: Replica) -> None:
    operator = await one.management.make_operator((await one.member(new_address())).user_id)
    address = new_address()
    user = await one.member(address)
    mine = await one.people.log_in(address, PASSWORD, client="c")
    await one.keys.create(user, KeyTerms())
    await one.people.ask_reset(address, client="c")
    reset = one.letters.secret(address)
    await one.management.set_status(operator, user.user_id, "suspended")
    with pytest.raises(UnauthorizedError):
        await one.people.who(mine.secret)
    with pytest.raises(ForbiddenError):
        await one.people.log_in(address, PASSWORD, client="c")
    assert [each.suspended for each in one.keys.list(user.user_id)] == [True]
    await one.people.reset(reset, OTHER)
    with pytest.raises(ForbiddenError):
        await one.people.log_in(address, OTHER, client="c")
    await one.management.set_status(operator, user.user_id, "active")
    assert [each.suspended for each in one.keys.list(user.user_id)] == [False]
    await one.people.log_in(address, OTHER, client="c")
    with pytest.raises(ForbiddenError):
        await one.management.set_roles(user, operator.user_id, ("user",))


async def test_what_is_done_is_told_by_ids_alone(one: Replica) -> None:
    events: asyncio.Queue[StateEvent] = asyncio.Queue()
    await one.bus.subscribe(subjects.STATE_EVENT, events.put_nowait, service=Role.PORTAL)
    operator = await one.management.make_operator((await one.member(new_address())).user_id)
    address = new_address()
    user = await one.member(address)
    made = await one.keys.create(user, KeyTerms())
    await one.keys.revoke(user.user_id, made.grant.key_id, actor=operator.user_id)
    found: list[StateEvent] = []
    async with asyncio.timeout(20):
        while not found or found[-1].type != "key_revoked":
            event = await events.get()
            assert address not in event.model_dump_json()
            found += [event] if event.account == user.user_id else []
    assert [(each.type, each.key_id) for each in found] == [
        ("user_signed_up", None),
        ("user_verified", None),
        ("user_logged_in", None),
        ("key_created", made.grant.key_id),
        ("key_revoked", made.grant.key_id),
    ]
    assert [each.actor for each in found] == [user.user_id] * 4 + [operator.user_id]
    kept = await one.bus.jetstream.get_last_msg("EVENTS", "helexa.event.portal.key_revoked")
    assert kept.data is not None
    assert made.grant.key_id in kept.data.decode()


def test_letters_of_development_are_in_a_private_file(tmp_path: Path) -> None:
    file = LetterFile(tmp_path / "letters.jsonl")
    for kind in (LetterKind.VERIFY, LetterKind.RESET):
        file.post(Letter(kind, "default", "ada@example.org", secret="s"))
    assert stat.S_IMODE((tmp_path / "letters.jsonl").stat().st_mode) == 0o600
    lines = (tmp_path / "letters.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["verify", "reset"]


def test_a_grant_says_nothing_of_the_secret_but_its_end() -> None:
    assert {"secret", "digest", "address"}.isdisjoint(KeyGrant.model_fields)
