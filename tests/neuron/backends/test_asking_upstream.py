# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A request is passed on under the name that the server behind a proxy knows."""

import json

import pytest

from helexa.neuron.backends.openai_proxy import ask_for
from helexa.protocol.errors import BackendError


@pytest.mark.parametrize(
    "body",
    [
        '{"model":"ours","messages":[{"role":"user","content":"\\u00fc 模 \\n"}],"seed":1}',
        '{"messages": [], "n": 1.50}',
        '{"model": "ours", "prompt": "half of a pair: \\ud800"}',
        '{"model": {"model": 1}, "model": "twice"}',
    ],
)
def test_only_the_name_of_the_model_is_another(body: str) -> None:
    asked = json.loads(ask_for('the "other" 模', body.encode()))
    assert asked == json.loads(body) | {"model": 'the "other" 模'}


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b'"a"', b"{", b'{"a":1}x', b"\xff"])
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(BackendError):
        ask_for("other", body)
