# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Who may join a site: the file of enrolled neurons and open join tokens, and join tokens.

A join token is the seed of a user that may only ask to be enrolled. To enrol a neuron, or to open a
token, the leading provisioner loads the file, adds to it, saves it, and has the servers read it
(`helexa.site.reload`). Where a server refuses, the provisioner saves what it loaded before. The
file's comments hold what `load` reads; the users below them are what the server reads.
"""

import base64
import binascii
import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from helexa.protocol.errors import BadRequestError, IdentityConflictError
from helexa.protocol.naming import decode_token, encode_token
from helexa.protocol.subjects import Role
from helexa.site.config import render_user, render_users
from helexa.site.errors import EnrolledFileError, JoinTokenError, KeyFileError
from helexa.site.files import write_secret
from helexa.site.keys import Identity, is_public_key
from helexa.site.permissions import neuron_token, permissions_for

TOKEN_PREFIX = "hxj1."

_HEADER = "# Written by the provisioner; changes are lost.\n"
_NEURON = re.compile(r"# neuron (\S+) (\S+)")
_TOKEN = re.compile(r"# token (\S+) (\d+)")
_PUBLIC_KEY = re.compile(r"\bU[A-Z2-7]{55}\b")


@dataclass(frozen=True, slots=True)
class EnrolledUsers:
    """The neurons of a site and its open join tokens. A value: each change returns a new one."""

    neurons: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Neuron id to public key."""
    tokens: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Public key of a join token to its expiry, in unix seconds."""
    reserved: frozenset[str] = frozenset()
    """Public keys of the site's other users. A key that stands twice would stop every server."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return what `path` holds, knowing the keys in the other files beside it.

        Raises:
            EnrolledFileError: the file is missing or damaged.
        """
        try:
            text = path.read_text(encoding="utf-8")
            others = [
                other.read_text(encoding="utf-8")
                for other in path.parent.glob("*.conf")
                if other != path
            ]
        except (OSError, UnicodeDecodeError) as error:
            raise EnrolledFileError(f"{path} cannot be read: {error}") from error
        reserved = frozenset(key for other in others for key in _PUBLIC_KEY.findall(other))
        return replace(cls.parse(text), reserved=reserved)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what the text of such a file holds.

        Raises:
            EnrolledFileError: the text is damaged.
        """
        neurons: dict[str, str] = {}
        tokens: dict[str, int] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            if found := _NEURON.fullmatch(line):
                neurons[_id_of(found[1], number)] = _known(found[2], number)
            elif found := _TOKEN.fullmatch(line):
                tokens[_known(found[1], number)] = int(found[2])
            elif line.startswith(("# neuron", "# token")):
                raise EnrolledFileError(f"line {number} of the enrolled neurons is damaged: {line}")
        return cls(neurons, tokens)

    def save(self, path: Path) -> None:
        """Replace `path` atomically; servers see it at their next reload or start."""
        write_secret(path, self.render())

    def render(self) -> str:
        """Return the text of the file."""
        entries = [
            line
            for neuron_id, public in sorted(self.neurons.items())
            for line in (
                f"# neuron {encode_token(neuron_id)} {public}",
                render_user(public, permissions_for(Role.NEURON, neuron_id)),
            )
        ]
        entries += [
            line
            for public, expires_s in sorted(self.tokens.items())
            for line in (
                f"# token {public} {expires_s}",
                render_user(public, permissions_for(Role.ENROLMENT)),
            )
        ]
        return _HEADER + render_users(entries)

    def add_neuron(self, neuron_id: str, public: str) -> Self:
        """Return the same with `neuron_id` bound to `public`; binding it again changes nothing.

        Raises:
            IdentityConflictError: the id belongs to another key, or the key to another user.
            BadRequestError: the id or the key cannot be one.
        """
        neuron_token(neuron_id)
        bound = self.neurons.get(neuron_id)
        if bound == public:
            return self
        if bound is not None:
            raise IdentityConflictError(f"The id {neuron_id} belongs to another key.")
        self._refuse_used(public)
        return replace(self, neurons={**self.neurons, neuron_id: public})

    def remove_neuron(self, neuron_id: str) -> Self:
        """Return the same without `neuron_id`; its connection ends at the reload."""
        kept = {name: key for name, key in self.neurons.items() if name != neuron_id}
        return replace(self, neurons=kept)

    def add_token(self, public: str, expires_s: int) -> Self:
        """Return the same with a join token that is open until `expires_s`, in unix seconds.

        Raises:
            IdentityConflictError: the key belongs to another user.
            BadRequestError: it is not a public key.
        """
        if public not in self.tokens:
            self._refuse_used(public)
        return replace(self, tokens={**self.tokens, public: expires_s})

    def expire_tokens(self, now_s: float) -> Self:
        """Return the same without the tokens whose time is over."""
        kept = {public: expires_s for public, expires_s in self.tokens.items() if expires_s > now_s}
        return self if len(kept) == len(self.tokens) else replace(self, tokens=kept)

    def _refuse_used(self, public: str) -> None:
        if not is_public_key(public):
            raise BadRequestError("This is not a public key (U…).", param="public_key")
        if public in {*self.neurons.values(), *self.tokens, *self.reserved}:
            raise IdentityConflictError("The key belongs to another user of the site.")


def lock_file(path: Path) -> Path:
    """Return the file that is locked by whoever changes the users in `path`."""
    return path.with_suffix(".lock")


@contextlib.contextmanager
def hold_users(path: Path) -> Iterator[None]:
    """Be the only one on this machine who changes the users in `path`; waits for others."""
    descriptor = os.open(lock_file(path), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class _Token(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    urls: tuple[str, ...]
    seed: str

    @field_validator("urls")
    @classmethod
    def _some(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        if not urls:
            raise ValueError("no address")
        return urls


def make_join_token(seed: str, urls: Sequence[str]) -> str:
    """Return one line to paste on another host: where the site is and how to ask to be enrolled."""
    text = json.dumps({"urls": list(urls), "seed": seed}, separators=(",", ":"))
    return TOKEN_PREFIX + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def parse_join_token(text: str) -> tuple[Identity, tuple[str, ...]]:
    """Return the identity to enrol with and the site's addresses.

    Raises:
        JoinTokenError: `text` is not a whole join token.
    """
    prefix, body = text.strip()[: len(TOKEN_PREFIX)], text.strip()[len(TOKEN_PREFIX) :]
    if prefix != TOKEN_PREFIX:
        raise JoinTokenError(f"A join token begins with {TOKEN_PREFIX}; this does not.")
    try:
        raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        token = _Token.model_validate_json(raw)
        return Identity.from_seed(token.seed), token.urls
    except (binascii.Error, ValueError, ValidationError, KeyFileError):
        # The cause is left out: it could quote the seed.
        raise JoinTokenError("The join token is not whole; copy all of it.") from None


def _known(public: str, line: int) -> str:
    if not is_public_key(public):
        raise EnrolledFileError(f"line {line} of the enrolled neurons has no valid key")
    return public


def _id_of(token: str, line: int) -> str:
    try:
        return decode_token(token)
    except UnicodeDecodeError as error:
        raise EnrolledFileError(f"line {line} of the enrolled neurons has no valid id") from error
