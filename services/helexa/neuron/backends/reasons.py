# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Why a runtime ended, read from its last lines."""

import re
from collections.abc import Sequence

from helexa.neuron.backends.faults import cleaned

_PORT_TAKEN = re.compile(
    r"address already in use|(couldn.t|cannot|failed to) bind|only one usage of each socket",
    re.IGNORECASE,
)
_FOLDERS = re.compile(r"(?<![\w.])(?:/[^\s/'\":]+)+/(?=[^\s/'\":]+)")
_REASONS = (
    re.compile(r"^[\d.]+ E (?:\w+ +)?\w+: +(?P<reason>.+)"),
    re.compile(r"(?P<reason>GGML_ASSERT.+)"),
    re.compile(r"^[\w.]+(?:Error|Exception): (?P<reason>.+)"),
    re.compile(r"\berror: (?P<reason>.+)", re.IGNORECASE),
)


def says_port_is_taken(lines: Sequence[str]) -> bool:
    """Whether the runtime could not listen where it was told to."""
    return any(_PORT_TAKEN.search(line) for line in lines)


def failure_reason(lines: Sequence[str]) -> str:
    """Return the line that says why a runtime failed, without addresses and paths.

    llama.cpp writes a first error line (` E `) where it happens, then one for each level above;
    programs in Python end with the error's name. Without either it is the last line.
    """
    for pattern in _REASONS:
        for line in lines:
            match = pattern.search(line)
            if match is not None:
                return _told(match["reason"])
    return _told(lines[-1]) if lines else ""


def _told(text: str) -> str:
    # The name of a file tells its owner which one it is; the folders are nobody's business.
    return cleaned(_FOLDERS.sub("", text)).removeprefix("error: ")
