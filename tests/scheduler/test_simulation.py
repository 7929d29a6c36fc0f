# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
from dataclasses import replace

from tests.scheduler.simulation import Shape, Simulation

SHAPE = Shape(chats=300)


async def test_eight_schedulers_find_what_was_read_as_well_as_one_and_nobody_is_crowded() -> None:
    one = await Simulation(SHAPE).run()
    eight = await Simulation(replace(SHAPE, replicas=8)).run()
    blind = await Simulation(replace(SHAPE, prefix_affinity=False)).run()
    assert abs(eight.hit_percent - one.hit_percent) < 3
    assert eight.hit_percent > blind.hit_percent + 15
    assert eight.first_token_median_s < 0.7 * blind.first_token_median_s
    assert eight.busiest_share < blind.busiest_share + 0.5
    assert eight.most_served < 1.5
    assert eight.refused == 0
