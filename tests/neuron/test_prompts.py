# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
from helexa.neuron.prompts import MOST_REPORTED, RecentPrompts
from helexa.protocol.prefixes import DIGEST_BYTES

RUNTIME = object()


def chain(*names: str) -> bytes:
    """Return digests that are easy to read."""
    return b"".join(name.ljust(DIGEST_BYTES).encode() for name in names)


def report(prompts: RecentPrompts, runtime: object | None = RUNTIME) -> list[str]:
    text = prompts.recent("m", runtime).decode()
    return [text[at : at + DIGEST_BYTES].strip() for at in range(0, len(text), DIGEST_BYTES)]


def test_a_prompt_is_reported_by_its_whole() -> None:
    prompts = RecentPrompts()
    prompts.take("m", RUNTIME, chain("a", "b", "c"))
    assert report(prompts) == ["c"]


def test_what_prompts_have_in_common_is_reported_once_two_have_come() -> None:
    prompts = RecentPrompts()
    prompts.take("m", RUNTIME, chain("a", "b", "c", "d"))
    prompts.take("m", RUNTIME, chain("a", "b", "x", "y"))
    prompts.take("m", RUNTIME, chain("a", "b", "z"))
    assert report(prompts) == ["d", "y", "b", "z"]


def test_a_chat_that_goes_on_keeps_its_place() -> None:
    prompts = RecentPrompts()
    prompts.take("m", RUNTIME, chain("a", "b"))
    prompts.take("m", RUNTIME, chain("other"))
    prompts.take("m", RUNTIME, chain("a", "b", "c"))
    assert report(prompts) == ["other", "b", "c"]


def test_the_report_is_bounded_and_keeps_the_newest() -> None:
    prompts = RecentPrompts()
    for number in range(1000):
        prompts.take("m", RUNTIME, chain(f"{number}"))
    assert len(report(prompts)) == MOST_REPORTED
    assert report(prompts)[-1] == "999"


def test_models_share_the_report() -> None:
    prompts = RecentPrompts()
    for name in ("m", "n"):
        for number in range(1000):
            prompts.take(name, RUNTIME, chain(f"{number}"))
    both = prompts.recent("m", RUNTIME) + prompts.recent("n", RUNTIME)
    assert len(both) == MOST_REPORTED * DIGEST_BYTES


def test_a_runtime_that_is_started_again_has_read_nothing() -> None:
    prompts = RecentPrompts()
    prompts.take("m", RUNTIME, chain("a", "b"))
    started_again = object()
    assert report(prompts, None) == []
    assert report(prompts, started_again) == []
    prompts.take("m", started_again, chain("a", "c"))
    assert report(prompts, started_again) == ["c"]
