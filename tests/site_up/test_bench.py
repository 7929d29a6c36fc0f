# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa bench` measures a real site."""

import asyncio
import json
import sys

import pytest
from tests.site_up.site import RunningSite

WITHIN_S = 120.0


async def bench(site: RunningSite, *words: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "helexa.cli", "bench", "--data-dir", str(site.data), *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), WITHIN_S)
    return process.returncode or 0, out.decode(), err.decode()


@pytest.mark.asyncio(loop_scope="module")
async def test_the_site_of_a_data_directory_is_measured(site: RunningSite) -> None:
    code, out, err = await bench(
        site,
        "--mode",
        "both",
        "--concurrency",
        "1",
        "4",
        "--requests",
        "8",
        "--max-tokens",
        "8",
        "--json",
    )

    assert code == 0, err
    found = json.loads(out)
    assert found["model"] == "helexa-tiny"
    assert found["url"] == site.base_url
    for row in found["figures"]:
        assert (row["answered"], row["refused"], row["failed"]) == (8, 0, 0), row["reasons"]
        assert row["prompt_tokens"] > 0
        assert 8 <= row["completion_tokens"] <= 64
        assert not row["are_tokens_events"]
        assert row["latency"]["p50_s"] > 0
    streamed = found["figures"][0]
    assert streamed["time_to_first_token"]["count"] == 8
    assert streamed["inter_token"]["count"] > 0
    assert 0 < streamed["time_to_first_token"]["p50_s"] < streamed["latency"]["p99_s"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_site_is_measured_at_a_rate(site: RunningSite) -> None:
    code, out, err = await bench(
        site,
        "--rate",
        "20",
        "--requests",
        "10",
        "--prompt-tokens",
        "20",
        "--max-tokens",
        "4",
        "--json",
    )

    assert code == 0, err
    [row] = json.loads(out)["figures"]
    assert row["answered"] == 10
    assert row["prompt_tokens"] > 15


@pytest.mark.asyncio(loop_scope="module")
async def test_a_model_that_a_site_does_not_have_is_told(site: RunningSite) -> None:
    code, out, err = await bench(site, "--model", "nope")

    assert (code, out) == (1, "")
    assert "404" in err
    assert "it has helexa-tiny" in err
