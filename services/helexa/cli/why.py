# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa why`: the reasons behind a request's route, or a model's."""

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import datetime
from urllib.parse import quote

from helexa.cli.reach import add_reach_arguments, orchestrator
from helexa.cli.views import RoutingView, WhyView
from helexa.protocol.naming import home_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take a model's name or a request's id."""
    parser.add_argument("about", metavar="REQUEST|MODEL", help="an x-request-id, or a model's name")
    parser.add_argument("--request", action="store_true", help="it is a request's id")
    parser.add_argument("--model", action="store_true", help="it is a model's name")
    parser.add_argument("--json", action="store_true", help="print everything that is known")
    add_reach_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the reasons."""
    path = f"/api/why?{_kind(arguments)}={quote(arguments.about, safe='')}"
    found = orchestrator(arguments).get(path)
    if arguments.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return 0
    sys.stdout.write("\n".join(explain(WhyView.model_validate(found))) + "\n")
    return 0


def explain(why: WhyView) -> Iterator[str]:
    """Yield the reasons, line by line."""
    yield from _routing(why.routing)
    if why.placement is not None:
        plan = why.placement
        places = ", ".join(plan.neurons) or "nowhere"
        yield f"placed: {places} ({plan.wanted} wanted, needs {plan.needs or 'nothing known'})"
        yield from (f"  not {neuron}: {reason}" for neuron, reason in plan.rejected.items())
    for decision in why.decisions:
        at = datetime.fromtimestamp(decision.at_ms / 1000).astimezone()
        yield f"decided {at:%Y-%m-%d %H:%M:%S}: {'; '.join(decision.reasons)}"


def _routing(routing: RoutingView) -> Iterator[str]:
    decision = routing.decision
    if decision is None:
        yield f"routed: nowhere, {routing.error or routing.reason or 'nothing is known'}"
    else:
        yield f"routed: {decision.model}, decision {decision.decision_id}"
        for target in decision.targets:
            reasons = ", ".join(f"{name} {_shown(value)}" for name, value in target.reasons.items())
            yield f"  {target.neuron_id}: score {target.score:.3f} ({reasons})"
    rejected = routing.rejected or (decision.rejected if decision else ())
    yield from (f"  not {each.neuron_id}: {each.reason}" for each in rejected)


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _kind(arguments: argparse.Namespace) -> str:
    if arguments.request or arguments.model:
        return "request" if arguments.request else "model"
    # Request ids are a gateway's id, a dot and 26 letters; hardly a model is called so.
    home = home_of(arguments.about)
    looks = home is not None and len(arguments.about) - len(home) - 1 == 26
    return "request" if looks else "model"
