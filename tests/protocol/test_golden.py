# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What was once on the wire must decode for ever.

The files in `golden/<version>/` are never rewritten. A new release adds a folder, made by running
this module as a program from the project's root: ``python -m tests.protocol.test_golden``.
"""

from pathlib import Path

import pytest
from tests.protocol.examples import EXAMPLES, FRAMES

from helexa.protocol import subjects
from helexa.protocol.codec import pack, unpack, unpack_plain
from helexa.protocol.frames import unpack_frame
from helexa.protocol.messages.base import HotMessage, Message

GOLDEN = Path(__file__).parent / "golden"
CURRENT = "0.1"
HOT = {name: each for name, each in EXAMPLES.items() if isinstance(each, HotMessage)}
FILES = sorted(GOLDEN.glob("*/*.msgpack"))


@pytest.mark.accepts("PR-8", "PR-15")
@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_an_old_encoding_still_reads_as_what_it_meant(file: Path) -> None:
    if file.stem.startswith("frame."):
        assert unpack_plain(file.read_bytes()) == FRAMES[file.stem.removeprefix("frame.")][1]
        unpack_frame(file.read_bytes())
        return
    example = EXAMPLES[file.stem]
    assert unpack(type(example), file.read_bytes()) == example


@pytest.mark.accepts("PR-14")
@pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in HOT])
def test_a_message_is_the_same_in_json(name: str) -> None:
    example = EXAMPLES[name]
    assert isinstance(example, Message)
    assert type(example).model_validate_json(example.model_dump_json()) == example


@pytest.mark.parametrize("name", HOT)
def test_a_hot_message_is_written_as_it_was_before_msgspec_wrote_it(name: str) -> None:
    before = unpack_plain((GOLDEN / "0.1" / f"{name}.msgpack").read_bytes())
    written = unpack_plain(pack(HOT[name]))
    assert isinstance(before, dict)
    assert isinstance(written, dict)
    assert written == written | before


def test_every_message_of_the_current_version_has_a_golden_file() -> None:
    kept = {file.stem for file in (GOLDEN / CURRENT).glob("*.msgpack")}
    assert kept == {*EXAMPLES, *(f"frame.{name}" for name in FRAMES)}


def test_every_type_on_a_subject_has_an_example() -> None:
    travelling = {kind for call in subjects.CALLS for kind in (call.request, call.reply)}
    travelling |= {event.message for event in subjects.EVENTS}
    assert travelling <= {type(example) for example in EXAMPLES.values()}


def write_golden_files() -> None:
    """Write those of this version that are missing: what is there has been promised."""
    folder = GOLDEN / CURRENT
    folder.mkdir(parents=True, exist_ok=True)
    golden = {name: pack(example) for name, example in EXAMPLES.items()}
    golden |= {f"frame.{name}": encoded for name, (encoded, _) in FRAMES.items()}
    for name, data in golden.items():
        file = folder / f"{name}.msgpack"
        if not file.exists():
            file.write_bytes(data)


if __name__ == "__main__":
    write_golden_files()
