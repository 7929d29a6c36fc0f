# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import pytest

from helexa.protocol.errors import (
    ERRORS_BY_CODE,
    BusyError,
    ErrorReply,
    HelexaError,
    UnlistedError,
    from_reply,
)


@pytest.mark.parametrize("kind", ERRORS_BY_CODE.values(), ids=lambda kind: kind.code)
def test_an_error_arrives_as_what_it_was_raised_as(kind: type[HelexaError]) -> None:
    sent = kind("so it is", retry_after_s=1.5, param="messages", tokens=12)
    received = from_reply(sent.to_reply())
    assert type(received) is kind
    assert received.to_reply() == sent.to_reply()


def test_every_error_has_a_code_of_its_own() -> None:
    def count(kind: type[HelexaError]) -> int:
        ours = [child for child in kind.__subclasses__() if child.__module__ == kind.__module__]
        return 1 + sum(count(child) for child in ours if child is not UnlistedError)

    assert count(HelexaError) == len(ERRORS_BY_CODE)


def test_the_first_line_of_the_documentation_is_the_message() -> None:
    assert BusyError().message == "There is no free slot."


@pytest.mark.accepts("PR-15")
def test_an_error_of_a_newer_peer_keeps_its_code() -> None:
    reply = ErrorReply(code="invented_later", message="news", retryable=True, details={"a": 1})
    received = from_reply(reply)
    assert received.to_reply() == reply
    assert received.message == "news"
