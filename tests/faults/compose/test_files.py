# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What the Compose files say, before anything is started."""

import json
import re
from typing import Any

import pytest

from helexa.cli.config import KINDS
from helexa.process.lifecycle import BEYOND_GRACE_S
from helexa.process.settings import COMMON_NAMES

from .stack import ROOT, require_engine, run

VARIANTS = (
    (),
    ("docker/ha/compose.yaml",),
    ("docker/publish-nats.yaml",),
    ("docker/ha/compose.yaml", "docker/ha/publish-nats.yaml"),
)


def configured(*overrides: str, profile: str = "gpu") -> dict[str, Any]:
    """Return the services of the site as Compose understands them."""
    files = [word for name in ("compose.yaml", *overrides) for word in ("-f", str(ROOT / name))]
    text = run("docker", "compose", *files, "--profile", profile, "config", "--format", "json")
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.fixture(autouse=True)
def _engine() -> None:
    require_engine()


def seconds(duration: str) -> int:
    found = re.fullmatch(r"(?:(\d+)m)?(\d+)s", duration)
    assert found is not None
    return int(found[1] or 0) * 60 + int(found[2])


def test_the_gpu_profile_adds_a_neuron_with_every_gpu() -> None:
    plain = configured(profile="none")["services"]
    services = configured()["services"]

    assert set(services) - set(plain) == {"neuron-gpu"}
    (device,) = services["neuron-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert device["capabilities"] == ["gpu"]
    assert device["count"] == -1
    assert "vllm" in services["neuron-gpu"]["build"]["args"]["BASE"]
    assert "llama" in services["neuron"]["build"]["args"]["SERVICE"]


@pytest.mark.parametrize("overrides", VARIANTS)
def test_every_variable_is_a_setting(overrides: tuple[str, ...]) -> None:
    known = {f"HELEXA_{name}".upper() for name in COMMON_NAMES}
    known |= {
        f"HELEXA_{section}_{name}".upper()
        for section, kind in KINDS.items()
        for name in kind.model_fields
    }
    for name, service in configured(*overrides)["services"].items():
        named = {each for each in service.get("environment") or {} if each.startswith("HELEXA_")}
        assert named <= known, name


@pytest.mark.parametrize("overrides", VARIANTS)
def test_docker_waits_longer_than_a_process_takes_to_stop(overrides: tuple[str, ...]) -> None:
    services = configured(*overrides)["services"]
    for section in ("gateway", "scheduler", "provisioner", "portal", "neuron", "neuron-gpu"):
        grace_s = float(services[section]["environment"]["HELEXA_GRACE_S"])
        assert seconds(services[section]["stop_grace_period"]) > grace_s + BEYOND_GRACE_S, section


@pytest.mark.parametrize("overrides", VARIANTS)
def test_nothing_but_the_edge_is_published_unless_a_file_says_so(
    overrides: tuple[str, ...],
) -> None:
    services = configured(*overrides)["services"]
    published = {name for name, service in services.items() if service.get("ports")}

    servers = {name for name in services if name.startswith("nats")}
    is_told = any("publish" in name for name in overrides)
    assert published == ({"edge", *servers} if is_told else {"edge"})
