# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import pytest

from helexa.protocol.naming import (
    decode_token,
    encode_token,
    home_of,
    is_token,
    request_id,
    request_token,
)


@pytest.mark.parametrize("name", ["plain", "org/model.v1", "a b*c>d=E", "模型", "="])
def test_any_name_becomes_one_subject_token_and_comes_back(name: str) -> None:
    token = encode_token(name)
    assert not set(token) & set(" .*>/\t")
    assert decode_token(token) == name


def test_a_request_id_names_its_gateway_and_cannot_be_guessed() -> None:
    made = request_id("gate1")
    assert home_of(made) == "gate1"
    assert is_token(request_token(made))
    assert len(request_token(made)) >= 128 / 5
    assert request_id("gate1") != made


@pytest.mark.parametrize("text", ["", "x", ".x", "x.", "a.b.c", "a.*", ">.x", "a b.c"])
def test_what_is_no_request_id_is_recognised(text: str) -> None:
    assert home_of(text) is None
