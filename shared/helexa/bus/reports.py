# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Hears what neurons report of themselves."""

import logging
from collections.abc import Callable

from helexa.bus.client import Bus
from helexa.protocol import subjects
from helexa.protocol.errors import MalformedError
from helexa.protocol.naming import encode_token
from helexa.protocol.reports import NeuronReport, read_report

_log = logging.getLogger(__name__)

Take = Callable[[NeuronReport, bytes], None]
"""Takes a report, and the encoded `NeuronStatus` that it was read from."""


async def hear_reports(bus: Bus, take: Take) -> None:
    """Call `take` with every report of a neuron about itself. It must not block."""

    def hear(subject: str, data: bytes) -> None:
        try:
            report = read_report(data)
        except MalformedError as error:
            _log.warning("event_unreadable", extra={"subject": subject, "error": error.message})
            return
        # The server vouches for the subject, not for what is said there.
        if subject == status_subject(report.neuron_id):
            take(report, data)
        else:
            _log.warning("status_of_another", extra={"subject": subject, "id": report.neuron_id})

    await bus.subscribe_raw(subjects.pattern_of(subjects.NEURON_STATUS.subject), hear)


def status_subject(neuron_id: str) -> str:
    """Return where a neuron reports."""
    return subjects.subject_of(subjects.NEURON_STATUS.subject, neuron=encode_token(neuron_id))
