# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What `up` and `cortex` print when a site runs. Pure."""

from dataclasses import dataclass
from pathlib import Path

from helexa.cli.addresses import RunningSite
from helexa.cli.commands import COMMANDS

READY_MARK = "helexa ready"
"""Begins the line that a program waits for."""


@dataclass(frozen=True, slots=True)
class KeyHint:
    """What a client needs to be let in."""

    file: Path | None = None
    """Holds a key that is accepted."""
    is_in_settings: bool = False
    """The digests of further keys are settings; the keys are known to their owners only."""

    @property
    def text(self) -> str:
        """The answer to which key to use."""
        if self.file is not None:
            return f"in {self.file}"
        if self.is_in_settings:
            return "one of those whose digests are in the settings"
        return "none is needed: only this machine can ask"


def panel(site: RunningSite, *, model: str | None, key: KeyHint, took_s: float, data: Path) -> str:
    """Return the panel: where to go, what to type, and how to stop."""
    lines = [f"Helexa runs, after {took_s:.1f} s. Its data is in {data}", ""]
    rows = [
        ("API", site.gateway_url and f"{site.gateway_url}/v1"),
        ("Model", model or "none is loaded yet; 'helexa status' tells more"),
        ("Key", key.text),
        ("Portal", site.portal_url),
        ("Orchestrator", site.orchestrator_url),
    ]
    lines += [f"  {name:13} {value}" for name, value in rows if value]
    if site.gateway_url:
        lines += ["", *_examples(f"{site.gateway_url}/v1", model or "helexa-tiny", key)]
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


def _examples(base_url: str, model: str, key: KeyHint) -> list[str]:
    shell, python = "", '"none"'
    if key.file is not None:
        shell, python = f"$(cat {key.file})", f'open("{key.file}").read().strip()'
    elif key.is_in_settings:
        shell, python = "$KEY", 'os.environ["KEY"]'
    authorization = f' -H "authorization: Bearer {shell}"' if shell else ""
    return [
        f"  curl {base_url}/chat/completions{authorization} \\",
        "    -H 'content-type: application/json' \\",
        f'    -d \'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello!"}}]}}\'',
        "",
        "  from openai import OpenAI",
        f'  client = OpenAI(base_url="{base_url}", api_key={python})',
    ]
