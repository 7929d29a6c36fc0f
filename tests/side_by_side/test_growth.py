# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What the benchmark of growth computes."""

from tests.benchmarks.growth.__main__ import AXES, table
from tests.benchmarks.growth.asking import cost
from tests.benchmarks.growth.ground import Usage


def test_a_request_costs_what_is_used_beyond_the_rest() -> None:
    seen = (
        Usage({"gateway": 1.0, "nats": 2.0}, {"gateway": 10.0, "nats": 20.0}),
        Usage({"gateway": 1.5, "nats": 2.1}, {"gateway": 11.0, "nats": 21.0}),
    )
    found = cost("answer", 100, seen, 2.0, {"gateway": 0.05, "nats": 0.1})
    assert {kind: round(us) for kind, us in found.us.items()} == {"gateway": 4000, "nats": 0}
    assert found.rss_mib == {"gateway": 11.0, "nats": 21.0}


def test_a_table_has_a_row_a_point_and_tells_medians_and_ranges() -> None:
    points = AXES["keys"]
    before = Usage({"gateway": 0.0}, {"gateway": 1.0})
    costs = [
        cost("answer", 1000, (before, Usage({"gateway": s}, {"gateway": m})), 1.0, {"gateway": 0.0})
        for s, m in ((0.3, 50.0), (0.1, 60.0), (0.2, 40.0))
    ]
    head, _, *rows = table("keys", points, [costs for _ in points]).splitlines()
    assert head == "| keys | all, us per answer | gateway | at rest: gateway | |"
    assert rows == [
        f"| {point.label} | 200 (100 to 300) | 200 | 0.0%, 60 MiB |  |" for point in points
    ]
