# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Where the processes of a site listen: written by those that start them, read by commands."""

from pydantic import Field

from helexa.site.layout import SiteFile


class RunningSite(SiteFile):
    """`site.json` with every address of every process."""

    gateway_urls: tuple[str, ...] = ()
    neuron_api_urls: dict[str, str] = Field(default_factory=dict)
    """The local API of each neuron on this machine, by the neuron's id."""
    neuron_control_urls: dict[str, str] = Field(default_factory=dict)
