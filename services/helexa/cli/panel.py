# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What `up` and `cortex` print when a site runs. Pure."""

from pathlib import Path

from helexa.cli.commands import COMMANDS
from helexa.cli.running import RunningSite

READY_MARK = "helexa ready"
"""Begins the line that a program waits for."""


def panel(
    site: RunningSite, *, model: str | None, key_file: Path | None, took_s: float, data: Path
) -> str:
    """Return the panel: where to go, what to type, and how to stop."""
    lines = [f"Helexa runs, after {took_s:.1f} s. Its data is in {data}", ""]
    rows = [
        ("API", site.gateway_url and f"{site.gateway_url}/v1"),
        ("Model", model or "none is loaded yet; 'helexa status' tells more"),
        ("Key", f"in {key_file}" if key_file else "none is needed: only this machine can ask"),
        ("Portal", site.portal_url),
        ("Orchestrator", site.orchestrator_url),
    ]
    lines += [f"  {name:13} {value}" for name, value in rows if value]
    if site.gateway_url:
        lines += ["", *_examples(f"{site.gateway_url}/v1", model or "helexa-tiny", key_file)]
    lines += [
        "",
        f"  A real model:  {COMMANDS['models'].example}",
        "  Ctrl-C stops everything.",
    ]
    return "\n".join(lines) + "\n"


def ready_line(site: RunningSite, *, model: str | None, took_s: float) -> str:
    """Return the line for programs: `helexa ready` and pairs of name and value."""
    pairs = {
        "gateway": site.gateway_url,
        "orchestrator": site.orchestrator_url,
        "portal": site.portal_url,
        "model": model,
        "seconds": f"{took_s:.2f}",
    }
    return " ".join([READY_MARK, *(f"{name}={value}" for name, value in pairs.items() if value)])


def _examples(base_url: str, model: str, key_file: Path | None) -> list[str]:
    authorization = f' -H "authorization: Bearer $(cat {key_file})"' if key_file else ""
    key = f'open("{key_file}").read().strip()' if key_file else '"none"'
    return [
        f"  curl {base_url}/chat/completions{authorization} \\",
        "    -H 'content-type: application/json' \\",
        f'    -d \'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello!"}}]}}\'',
        "",
        "  from openai import OpenAI",
        f'  client = OpenAI(base_url="{base_url}", api_key={key})',
    ]
