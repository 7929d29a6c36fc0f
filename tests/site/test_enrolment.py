# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import base64
from pathlib import Path

import pytest

from helexa.protocol.errors import BadRequestError, IdentityConflictError
from helexa.protocol.subjects import Role
from helexa.site.config import SITE_ROLES, render_services
from helexa.site.enrolment import EnrolledUsers, make_join_token, parse_join_token
from helexa.site.errors import EnrolledFileError, JoinTokenError
from helexa.site.keys import Identity

FIRST = Identity.generate().public
SECOND = Identity.generate().public


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "neurons.conf"
    users = EnrolledUsers().add_neuron("n 1.ü", FIRST).add_token(SECOND, 1_800_000_000)

    users.save(path)

    assert EnrolledUsers.load(path) == users
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.accepts("CX-7")
def test_an_id_stays_with_its_key() -> None:
    users = EnrolledUsers().add_neuron("n1", FIRST)

    assert users.add_neuron("n1", FIRST) == users
    with pytest.raises(IdentityConflictError, match="The id n1 belongs to another key"):
        users.add_neuron("n1", SECOND)


def test_a_key_is_that_of_one_user(tmp_path: Path) -> None:
    # A key that stands twice makes the whole configuration invalid.
    gateway = Identity.generate().public
    publics = {role: Identity.generate().public for role in SITE_ROLES} | {Role.GATEWAY: gateway}
    (tmp_path / "services.conf").write_text(render_services(publics))
    path = tmp_path / "neurons.conf"
    EnrolledUsers().add_neuron("n1", FIRST).add_token(SECOND, 5).save(path)
    users = EnrolledUsers.load(path)

    for taken in (FIRST, SECOND, gateway):
        with pytest.raises(IdentityConflictError, match="belongs to another user"):
            users.add_neuron("n2", taken)
    for taken in (FIRST, gateway):
        with pytest.raises(IdentityConflictError, match="belongs to another user"):
            users.add_token(taken, 9)
    assert users.add_token(SECOND, 9).tokens == {SECOND: 9}


@pytest.mark.parametrize("neuron_id", ["", "ctl", "x" * 129])
def test_an_id_that_no_neuron_may_have_is_refused(neuron_id: str) -> None:
    with pytest.raises(BadRequestError):
        EnrolledUsers().add_neuron(neuron_id, FIRST)


@pytest.mark.parametrize("public", ["", "U" * 56, f'{FIRST}"}} ]', FIRST[:-1]])
def test_what_is_not_a_key_never_reaches_the_configuration(public: str) -> None:
    with pytest.raises(BadRequestError, match="not a public key"):
        EnrolledUsers().add_neuron("n1", public)


def test_an_id_cannot_break_out_of_its_line() -> None:
    hostile = "n1\n# neuron n2 x\n]"

    users = EnrolledUsers().add_neuron(hostile, FIRST)

    assert EnrolledUsers.parse(users.render()).neurons == {hostile: FIRST}


def test_a_token_ends_with_its_time() -> None:
    users = EnrolledUsers().add_neuron("n1", FIRST).add_token(SECOND, 100)

    assert users.expire_tokens(99.9) is users
    assert users.expire_tokens(100).tokens == {}
    assert users.expire_tokens(100).neurons == {"n1": FIRST}


def test_a_removed_neuron_is_gone() -> None:
    users = EnrolledUsers().add_neuron("n1", FIRST).add_neuron("n2", SECOND)

    assert users.remove_neuron("n1").neurons == {"n2": SECOND}
    assert users.remove_neuron("unknown") == users


@pytest.mark.parametrize("line", ["# neuron n1", "# neuron n1 UABC", "# token UABC 5", "# token"])
def test_a_damaged_file_is_not_taken_for_an_empty_one(line: str) -> None:
    with pytest.raises(EnrolledFileError, match="line 1"):
        EnrolledUsers.parse(line)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnrolledFileError, match=r"neurons\.conf cannot be read"):
        EnrolledUsers.load(tmp_path / "neurons.conf")


def test_a_join_token_is_one_word_that_holds_all_a_host_needs() -> None:
    seed = Identity.generate().seed
    urls = ("nats://10.0.0.1:4222", "tls://site.example:4222")

    token = make_join_token(seed, urls)

    assert token.startswith("hxj1.")
    assert token.split() == [token]
    identity, found = parse_join_token(f"  {token}\n")
    assert (identity.seed, found) == (seed, urls)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "begins with hxj1."),
        ("sk-hx-abc", "begins with hxj1."),
        ("hxj1.", "is not whole"),
        ("hxj1.!!!", "is not whole"),
        ("hxj1." + base64.urlsafe_b64encode(b'{"urls":["x"],"seed":"SU"}').decode(), "not whole"),
        (make_join_token(Identity.generate().seed, ["nats://x"])[:-9], "is not whole"),
        (make_join_token(Identity.generate().seed, []), "is not whole"),
    ],
)
def test_a_token_that_was_not_copied_whole_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(JoinTokenError, match=sentence) as refused:
        parse_join_token(text)

    assert refused.value.__cause__ is None
