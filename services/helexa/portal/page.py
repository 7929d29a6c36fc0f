# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The status page as HTML. Pure; everything that comes from outside is escaped."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template

from helexa.portal.overview import ModelRow

STYLE = files(__package__).joinpath("style.css").read_text(encoding="utf-8")
_PAGE = Template(files(__package__).joinpath("page.html").read_text(encoding="utf-8"))

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class StatusPage:
    """What the page shows."""

    site_name: str
    is_ready: bool
    models: Sequence[ModelRow]
    api_url: str
    version: str


def render(page: StatusPage) -> str:
    """Return the page."""
    ready = [row.name for row in page.models if row.state in ("ready", "busy")]
    if not page.is_ready:
        readiness = ("failed", "Not connected to the site; trying again")
    elif ready:
        readiness = ("ready", "Serving")
    else:
        readiness = ("loading", "No model is ready yet")
    return _PAGE.substitute(
        site=escape(page.site_name),
        readiness=readiness[0],
        readiness_told=readiness[1],
        models=_models(page.models),
        api_url=escape(page.api_url),
        model=escape((ready or ["helexa-tiny"])[0]),
        version=escape(page.version),
    )


def _models(rows: Sequence[ModelRow]) -> str:
    if not rows:
        return "<p>There are none yet.</p>"
    return "<ul>\n" + "\n".join(map(_model, rows)) + "\n</ul>"


def _model(row: ModelRow) -> str:
    notes = [f"also {', '.join(row.aliases)}"] if row.aliases else []
    if row.context_tokens is not None:
        notes.append(f"{row.context_tokens:,} tokens of context")
    also = f' <span class="also">{escape("; ".join(notes))}</span>' if notes else ""
    return (
        f'<li><span class="name">{escape(row.name)}{also}</span> '
        f'<span class="state {row.state}">{escape(row.told)}</span></li>'
    )
