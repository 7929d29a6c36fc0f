# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The configuration files that ship with the documentation are valid for every service."""

from pathlib import Path

import pytest

from helexa.gateway.settings import GatewaySettings
from helexa.neuron.settings import NeuronSettings
from helexa.portal.settings import PortalSettings
from helexa.process.settings import ServiceSettings, load_settings
from helexa.provisioner.settings import ProvisionerSettings
from helexa.scheduler.settings import SchedulerSettings

EXAMPLES = sorted((Path(__file__).parents[2] / "docs" / "examples").glob("*.toml"))
SERVICES = (
    GatewaySettings,
    NeuronSettings,
    PortalSettings,
    ProvisionerSettings,
    SchedulerSettings,
)


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.accepts("CFG-4")
@pytest.mark.parametrize("kind", SERVICES, ids=lambda kind: kind.section)
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_an_example_loads(file: Path, kind: type[ServiceSettings]) -> None:
    loaded = load_settings(kind, environment={}, file=file)
    assert loaded.origins["data_dir"].startswith(str(file))
