# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What one case came to, as a row of the table."""

from collections.abc import Sequence

from tests.faults.load import Load


def row(case: str, load: Load, leaked: Sequence[str], back_s: float) -> dict[str, object]:
    """Return the columns.

    Args:
        case: Who was struck by what.
        load: The clients, when all of them have ended.
        leaked: What was left.
        back_s: From the end of the fault until every gateway answered.
    """
    outcomes = load.outcomes
    return {
        "case": case,
        "requests": len(outcomes),
        "answers": load.count("answer"),
        "resumed": sum(each.resumed > 0 for each in outcomes),
        "repeated": sum(each.repeated > 0 for each in outcomes),
        "clear errors": load.count("error"),
        "wrong": load.count("wrong"),
        "hung": load.count("hung"),
        "leaked": len(leaked),
        "slowest_s": f"{max(each.took_s for each in outcomes):.1f}",
        "back_s": f"{back_s:.1f}",
        "errors": ", ".join(f"{count}x {code}" for code, count in load.details("error").items()),
    }
