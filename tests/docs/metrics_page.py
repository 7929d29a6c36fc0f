# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The reference page of metrics, made of the calls that declare them."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from helexa.process.metrics import LATENCY_BUCKETS_S
from helexa.protocol.messages.events import EventType, HistogramSample, MetricsReport, StateEvent

SERVICES = Path(__file__).parents[2] / "services" / "helexa"
ORDER = ("gateway", "scheduler", "provisioner", "portal", "neuron")
KINDS = {"counter": "counter", "gauge": "gauge", "reading": "gauge", "histogram": "histogram"}
"""The kind of metric that each declaring call makes."""
INTRODUCTION = """\
Each process publishes a report on `helexa.metrics.SERVICE` every `metrics_interval_s` seconds (5
by default), and one more when it stops. It is JSON. The same numbers are at `/metrics` in
Prometheus's text format. [How to read both](../how-to/read-the-metrics.md).

A consumer must pass over fields that it does not know. Several processes of a service publish on
the same subject; `instance` tells them apart. Counters and histograms count from the start of the
instance: a new `instance` begins at 0. No key, user or request id is ever a label.
"""
KEYS = """\
`at_ms` is the publisher's wall clock in Unix milliseconds, `interval_s` the time between two
reports. A key of `counters`, `gauges` and `histograms` is the metric's name with its labels:
`helexa_requests_total{code="200",model="helexa-tiny",route="chat"}`. `buckets` is cumulative: each
upper bound, as text, and the number of observations at or below it; `+Inf` is the last one.
"""
FieldRow = Callable[[type[BaseModel], str], str]


@dataclass(frozen=True, slots=True)
class Declared:
    """One metric in the code."""

    kind: str
    name: str
    text: str
    labels: tuple[str, ...]
    has_own_bounds: bool

    @property
    def row(self) -> str:
        full = f"helexa_{self.name}{'_total' if self.kind == 'counter' else ''}"
        labels = ", ".join(f"`{each}`" for each in self.labels) or "-"
        text = self.text.removesuffix(".") + "."
        if self.has_own_bounds:
            text += " Has bounds of its own."
        return f"| `{full}` | {self.kind} | {labels} | {text} |"


def metrics_page(note: str, field_row: FieldRow) -> str:
    """Return the page of metrics; `field_row` shows a field of a wire type."""
    lines = ["# Metrics", "", note, "", INTRODUCTION, "## The report", ""]
    for kind in (MetricsReport, HistogramSample):
        lines += [f"### {kind.__name__}", "", "| field | type | default |", "|---|---|---|"]
        lines += [*(field_row(kind, name) for name in kind.model_fields), ""]
    lines += [
        KEYS,
        "Durations are in seconds. Unless said otherwise the bounds are "
        + ", ".join(f"{bound:g}" for bound in LATENCY_BUCKETS_S)
        + ".",
    ]
    for service in ORDER:
        lines += [
            "",
            f"## {service}",
            "",
            "| name | kind | labels | meaning |",
            "|---|---|---|---|",
        ]
        lines += [each.row for each in declared(service)]
    lines += ["", "## Events", "", "State changes come on `helexa.event.>`, as JSON too:", ""]
    lines += ["| field | type | default |", "|---|---|---|"]
    lines += [field_row(StateEvent, name) for name in StateEvent.model_fields]
    types = sorted(value for name, value in vars(EventType).items() if name.isupper())
    lines += ["", "Known types: " + ", ".join(f"`{each}`" for each in types) + "."]
    return "\n".join(lines) + "\n"


def declared(service: str) -> list[Declared]:
    """Return the metrics of a service, by name."""
    found = [
        each
        for path in sorted((SERVICES / service).rglob("*.py"))
        for each in _in_module(ast.parse(path.read_text(encoding="utf-8")))
    ]
    return sorted(found, key=lambda each: each.name)


def _in_module(tree: ast.Module) -> Iterator[Declared]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in KINDS
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "metrics"
        ):
            name, text, *labels = (str(ast.literal_eval(each)) for each in node.args)
            own = any(keyword.arg == "buckets" for keyword in node.keywords)
            yield Declared(KINDS[node.func.attr], name, text, tuple(labels), own)
