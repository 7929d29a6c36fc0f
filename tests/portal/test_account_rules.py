# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from helexa.portal.accounts.addresses import address_key, normalise
from helexa.portal.accounts.minting import (
    form_token,
    hint_of,
    is_form_token,
    mint_key,
    mint_secret,
)
from helexa.portal.accounts.passwords import check_password, prepare
from helexa.portal.accounts.periods import period_at
from helexa.portal.accounts.roles import check_manages, with_roles, with_status
from helexa.portal.accounts.sessions import is_good
from helexa.portal.accounts.terms import KeyTerms, grant_of, revoked, with_terms
from helexa.protocol.errors import BadRequestError, ForbiddenError
from helexa.protocol.messages.accounts import Budget, Session, User
from helexa.protocol.naming import digest_of, is_token

ADA = User(
    user_id="user_ada",
    portal="default",
    address="ada@example.org",
    password_hash="x",
    status="active",
)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (" Ada@Example.ORG ", "ada@example.org"),
        ("ada+news@example.org", "ada+news@example.org"),
        ("a.da@example.org.", "a.da@example.org"),
        ("jörg@bücher.example", "jörg@xn--bcher-kva.example"),
        ("\uff41da@example.org", "ada@example.org"),
        ("o'neil@mail.example.org", "o'neil@mail.example.org"),
    ],
)
def test_an_address_has_one_form(given: str, wanted: str) -> None:
    assert normalise(given) == wanted
    assert normalise(wanted) == wanted


@pytest.mark.parametrize(
    "given",
    [
        "", "ada", "@example.org", "ada@", "ada@example", "a da@example.org", "ada@exa mple.org",
        "ada@-example.org", "a@b@example.org", "ada@example..org", "ada\n@example.org",
        "x" * 65 + "@example.org", "ada@" + "x" * 64 + ".org", "ada@" + "a.b." * 70 + "org",
        "<ada@example.org>", "ada,bea@example.org",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        normalise(given)
    assert caught.value.param == "address"


def test_one_address_is_kept_apart_for_each_portal() -> None:
    kept = {address_key("one", "a@b.org"), address_key("two", "a@b.org")}
    assert len(kept) == 2
    assert all(is_token(each) for each in kept)


@pytest.mark.parametrize(
    "password",
    [
        "short", "123456789", "aaaaaaaaaaaa", "abababababab", "Password123", "QWERTYUIOP",
        "ada@example.org", "example.org", "AdaLovelace", "ada lovelace", "x" * 257,
    ],
)  # fmt: skip
def test_a_password_that_is_easy_to_guess_is_refused(password: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        check_password(prepare(password), address="ada@example.org", name="Ada Lovelace")
    assert caught.value.param == "password"


@pytest.mark.parametrize("password", ["seven green pears", "ünïcödé wörds", "hunter2hunter3"])
def test_any_other_password_of_ten_characters_is_taken(password: str) -> None:
    check_password(prepare(password), address="ada@example.org")


def test_a_password_is_the_same_however_its_letters_are_composed() -> None:
    assert prepare("e\u0301t\u00e9 and more") == prepare("\u00e9te\u0301 and more")


def test_a_key_has_at_least_128_random_bits_and_is_kept_as_its_digest() -> None:
    made = [mint_key() for _ in range(1000)]
    assert len({each.secret for each in made}) == 1000
    for secret, digest in made:
        assert secret.startswith("sk-hx-")
        assert len(secret.removeprefix("sk-hx-")) * 5 >= 128
        assert digest == digest_of(secret)
        assert secret.endswith(hint_of(secret))
        assert len(hint_of(secret)) == 4
    assert len(mint_secret().secret) * 5 >= 256


def test_a_form_token_belongs_to_one_session() -> None:
    assert is_form_token("secret", form_token("secret"))
    assert not is_form_token("other", form_token("secret"))
    assert "secret" not in form_token("secret")


@pytest.mark.parametrize(
    ("kind", "name", "begins", "ends"),
    [
        ("day", "2026-02-28", datetime(2026, 2, 28, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)),
        ("week", "2026-W09", datetime(2026, 2, 23, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)),
        ("month", "2026-02", datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)),
        ("total", "total", None, None),
    ],
)
def test_a_budget_begins_anew_with_its_period(
    kind: str, name: str, begins: datetime | None, ends: datetime | None
) -> None:
    found = period_at(kind, datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC))
    assert (found.name, found.begins, found.ends) == (name, begins, ends)
    if ends is not None:
        assert period_at(kind, ends).begins == ends
        assert period_at(kind, ends - timedelta(microseconds=1)) == found


def test_periods_are_those_of_utc_and_weeks_belong_to_one_year() -> None:
    east = timezone(timedelta(hours=10))
    assert period_at("day", datetime(2026, 3, 1, 9, 0, tzinfo=east)).name == "2026-02-28"
    assert period_at("week", datetime(2027, 1, 1, tzinfo=UTC)).name == "2026-W53"
    assert period_at("month", datetime(2026, 12, 31, tzinfo=UTC)).ends == datetime(
        2027, 1, 1, tzinfo=UTC
    )
    with pytest.raises(BadRequestError):
        period_at("fortnight", datetime(2026, 1, 1, tzinfo=UTC))


USD = Budget(amount=1, currency="USD", period="month")


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        (KeyTerms(name="x" * 101), "name"),
        (KeyTerms(name="a\nb"), "name"),
        (KeyTerms(expires_ms=1000), "expires_ms"),
        (KeyTerms(scopes=()), "scopes"),
        (KeyTerms(scopes=("everything",)), "scopes"),
        (KeyTerms(models=()), "models"),
        (KeyTerms(models=(" ",)), "models"),
        (KeyTerms(models=("m",) * 101), "models"),
        (KeyTerms(requests_per_minute=0), "requests_per_minute"),
        (KeyTerms(tokens_per_minute=-1), "tokens_per_minute"),
        (KeyTerms(budget=USD.model_copy(update={"amount": 0})), "budget"),
        (KeyTerms(budget=USD.model_copy(update={"currency": "usd"})), "budget"),
        (KeyTerms(budget=USD.model_copy(update={"period": "year"})), "budget"),
    ],
)
def test_terms_that_mean_nothing_are_refused(terms: KeyTerms, field: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        terms.check(1000)
    assert caught.value.param == field


def test_other_terms_leave_the_key_the_same_key() -> None:
    terms = KeyTerms(name="one", models=("m",), requests_per_minute=5, budget=USD)
    grant = grant_of(ADA, "key_1", "wxyz", terms, 7)
    assert (grant.account, grant.portal, grant.created_ms) == ("user_ada", "default", 7)
    other = with_terms(grant, replace(terms, name="two", models=None))
    assert (other.key_id, other.hint, other.name, other.models) == ("key_1", "wxyz", "two", None)
    assert revoked(revoked(grant, 9), 10).revoked_ms == 9


SESSION = Session(
    user_id="user_ada", portal="default", password_edition=0, created_ms=0, expires_ms=100
)


@pytest.mark.parametrize(
    ("change", "is_good_still"),
    [
        ({}, True),
        ({"password_edition": 1}, False),
        ({"status": "suspended"}, False),
        ({"status": "unverified"}, False),
        ({"user_id": "user_bea"}, False),
        ({"portal": "other"}, False),
    ],
)
def test_a_session_is_good_while_its_user_is_as_they_were(
    change: dict[str, object], is_good_still: bool
) -> None:
    user = ADA.model_copy(update=change)
    assert is_good(SESSION, user, "default", 99) is is_good_still
    assert not is_good(SESSION, user, "default", 100)
    assert not is_good(SESSION, user, "elsewhere", 99)


def user(name: str, *roles: str, portal: str = "default") -> User:
    return ADA.model_copy(
        update={"user_id": f"user_{name}", "roles": roles or ("user",), "portal": portal}
    )


OPERATOR, ADMIN = user("op", "user", "operator", portal="first"), user("admin", "user", "admin")


def test_admins_manage_the_users_of_their_portal_and_operators_everybody() -> None:
    for target in (ADA, user("elsewhere", portal="other"), ADMIN, user("boss", "operator")):
        check_manages(OPERATOR, target)
    check_manages(ADMIN, ADA)
    check_manages(ADMIN, user("second", "admin"))
    for target in (user("elsewhere", portal="other"), user("boss", "operator"), ADMIN):
        with pytest.raises(ForbiddenError):
            check_manages(ADMIN, target)
    for actor in (ADA, user("bea")):
        with pytest.raises(ForbiddenError):
            check_manages(actor, ADA)
    with pytest.raises(ForbiddenError):
        check_manages(OPERATOR, OPERATOR)


def test_only_operators_make_operators() -> None:
    assert with_roles(OPERATOR, ADA, ("user", "operator", "user")).roles == ("user", "operator")
    assert with_roles(ADMIN, ADA, ("user", "admin")).roles == ("user", "admin")
    with pytest.raises(ForbiddenError):
        with_roles(ADMIN, ADA, ("operator",))
    for roles in ((), ("king",)):
        with pytest.raises(BadRequestError):
            with_roles(OPERATOR, ADA, roles)
    assert with_status(ADMIN, ADA, "suspended").status == "suspended"
    with pytest.raises(BadRequestError):
        with_status(ADMIN, ADA, "unverified")
