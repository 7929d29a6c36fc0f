# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""An answer outlives the gateway that it began at."""

import re
from pathlib import Path

import httpx
import pytest
from tests.site_up.site import site_up
from tests.site_up.test_life import LONG

EVENT = re.compile(r"id: (\d+)\ndata: (.*)\n\n")


@pytest.mark.accepts("NET-3")
async def test_the_rest_of_an_answer_comes_from_another_gateway(tmp_path: Path) -> None:
    async with (
        site_up(tmp_path / "data", "--gateways", "2") as site,
        httpx.AsyncClient(timeout=60) as http,
    ):
        first, second = site.gateways
        undisturbed = await whole(http, f"{first}/v1/chat/completions")

        seen = ""
        async with http.stream("POST", f"{first}/v1/chat/completions", json=LONG) as answer:
            handle = answer.headers["x-request-id"]
            pieces = answer.aiter_text()
            while len(EVENT.findall(seen)) < 40:
                seen += await anext(pieces)
            gateway = next(
                process
                for process in site.processes("helexa.cli", "gateway")
                if any(first.removeprefix("http://") in word for word in process.cmdline())
            )
            gateway.kill()
            try:
                async for piece in pieces:
                    seen += piece
            except httpx.RemoteProtocolError:
                pass
        events = EVENT.findall(seen)
        assert 40 <= len(events) < len(undisturbed)

        resumed = await http.get(f"{second}/v1/streams/{handle}", params={"from": len(events)})
        assert resumed.status_code == 200
        assert resumed.text.endswith("data: [DONE]\n\n")
        events += EVENT.findall(resumed.text)
        assert [int(number) for number, _ in events] == list(range(len(undisturbed)))
        assert [content(data) for _, data in events] == [content(data) for _, data in undisturbed]

        again = await http.get(
            f"{second}/v1/streams/{handle}", headers={"Last-Event-ID": str(len(events) - 5)}
        )
        assert EVENT.findall(again.text) == events[-4:]

        other = handle[:-1] + ("y" if handle.endswith("x") else "x")
        stranger = await http.get(f"{second}/v1/streams/{other}")
        assert stranger.status_code == 404
        assert stranger.json()["error"]["type"] == "invalid_request_error"


async def whole(http: httpx.AsyncClient, url: str) -> list[tuple[str, str]]:
    return EVENT.findall((await http.post(url, json=LONG)).text)


def content(data: str) -> str:
    """Return what an event says, without the id and the time, which differ between requests."""
    return re.sub(r'"(id|created)":("[^"]*"|\d+)', "", data)
