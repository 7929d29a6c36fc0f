# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import threading
from pathlib import Path

import nkeys
import pytest

from helexa.site.errors import KeyFileError
from helexa.site.files import create_secret, read_secret, write_secret
from helexa.site.keys import Identity, is_public_key, random_key, verify


@pytest.mark.accepts("MESH-1")
def test_a_key_is_made_once_and_kept_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "gateway.nk"

    first = Identity.load_or_create(path)

    assert Identity.load_or_create(path).public == first.public
    assert Identity.load(path).seed == first.seed
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["gateway.nk"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "gateway.nk"
    Identity.load_or_create(path)
    path.chmod(mode)

    with pytest.raises(KeyFileError, match=f"run: chmod 600 {path}"):
        Identity.load(path)


def test_processes_that_create_the_same_key_at_once_agree(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "join.nk"
    start = threading.Barrier(8)
    seen: list[str] = []

    def create() -> None:
        start.wait()
        seen.append(Identity.load_or_create(path).public)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(seen) == 8
    assert len(set(seen)) == 1


def test_a_missing_or_damaged_key_file_is_named(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.nk"
    write_secret(damaged, Identity.generate().seed[:-1] + "7\n")

    with pytest.raises(KeyFileError, match=r"absent\.nk cannot be read: No such file"):
        Identity.load(tmp_path / "absent.nk")
    with pytest.raises(KeyFileError, match=r"damaged.nk: this is not the seed of a user key"):
        Identity.load(damaged)


def test_keys_are_those_of_nats() -> None:
    ours = Identity.generate()
    theirs = nkeys.from_seed(ours.seed.encode())

    assert theirs.public_key.decode() == ours.public
    assert theirs.verify(b"data", ours.sign(b"data"))
    assert verify(ours.public, b"data", theirs.sign(b"data"))
    assert Identity.from_seed(ours.seed).public == ours.public


@pytest.mark.accepts("NET-7")
def test_a_signature_holds_for_its_data_and_key_alone() -> None:
    signer = Identity.generate()
    signature = signer.sign(b"data")

    assert verify(signer.public, b"data", signature)
    assert not verify(signer.public, b"datA", signature)
    assert not verify(signer.public, b"data", bytes([signature[0] ^ 1]) + signature[1:])
    assert not verify(signer.public, b"data", signature[:-1])
    assert not verify(Identity.generate().public, b"data", signature)
    assert not verify("nobody", b"data", signature)
    assert not verify(signer.seed, b"data", signature)


def test_only_a_whole_public_user_key_counts_as_one() -> None:
    public = Identity.generate().public

    assert is_public_key(public)
    assert not is_public_key(public[:-1] + ("A" if public[-1] != "A" else "B"))
    assert not is_public_key(public.lower())
    assert not is_public_key(public + "\n")
    assert not is_public_key(Identity.generate().seed)
    assert not is_public_key("")
    assert not is_public_key("Ü" * 56)


def test_a_seed_is_not_shown_by_accident() -> None:
    identity = Identity.generate()

    assert identity.seed not in repr(identity)
    assert identity.public in repr(identity)


def test_api_keys_are_long_and_never_the_same() -> None:
    keys = {random_key() for _ in range(100)}

    assert len(keys) == 100
    assert all(key.startswith("sk-hx-") and len(key) == len("sk-hx-") + 32 for key in keys)


def test_a_secret_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "gateway.key"
    write_secret(path, "first\n")
    write_secret(path, "second\n")

    assert read_secret(path) == "second"
    assert not create_secret(path, "third")
    assert read_secret(path) == "second"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
