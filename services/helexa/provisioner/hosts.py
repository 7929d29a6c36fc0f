# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Hosts and wishes as placement sees them: plain values, taken at one moment."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from helexa.protocol.messages.models import ModelConfig, ModelState, ModelStatus
from helexa.protocol.messages.neurons import NeuronDescriptor, NeuronStatus
from helexa.provisioner.backoff import Failure


@dataclass(frozen=True, slots=True)
class Host:
    """A neuron. One that is registered but has not reported yet keeps what it holds."""

    descriptor: NeuronDescriptor
    status: NeuronStatus | None
    age_s: float = 0.0
    """Time since its last report."""
    steady: bool = True
    """It has not missed several reports."""
    models: dict[str, ModelStatus] = field(init=False, compare=False, default_factory=dict)
    """What it reports of each model."""

    def __post_init__(self) -> None:
        """Sort what it reports: each model is looked up again and again."""
        for each in self.status.models if self.status else ():
            self.models.setdefault(each.model, each)

    @property
    def neuron_id(self) -> str:
        """The neuron's name."""
        return self.descriptor.neuron_id

    @property
    def draining(self) -> bool:
        """Whether it takes no new work."""
        return self.status is not None and self.status.draining

    def model(self, model: str) -> ModelStatus | None:
        """Return what it reports of a model."""
        return self.models.get(model)

    def has_loaded(self, model: str) -> bool:
        """Whether it reports the model as loaded."""
        found = self.model(model)
        return found is not None and found.state == ModelState.LOADED


def reports_of(hosts: Iterable[Host]) -> dict[str, list[ModelStatus]]:
    """Return what is reported of each model."""
    found: defaultdict[str, list[ModelStatus]] = defaultdict(list)
    for host in hosts:
        for model, status in host.models.items():
            found[model].append(status)
    return found


@dataclass(frozen=True, slots=True)
class Wish:
    """One model of the catalogue: what is wanted of it, and what was decided before."""

    config: ModelConfig
    digest: str = ""
    """Of the configuration."""
    current: tuple[str, ...] = ()
    """Neurons where it shall be, by the last decision."""
    asked: bool = False
    """An operator asked for it, until they have it unloaded."""
    asked_neurons: tuple[str, ...] = ()
    """Neurons where an operator asked for it."""
    stopped: bool = False
    """An operator had it unloaded, and nobody has asked for it since."""
    waiting: int = 0
    """Requests that wait for it now."""
    changed_s_ago: float = float("inf")
    failures: dict[str, Failure] = field(default_factory=dict)
    """By neuron; those whose wait has ended are here too."""
    blocked: frozenset[str] = frozenset()
    """Neurons whose wait after a failure has not ended."""

    @property
    def model(self) -> str:
        """The model's name."""
        return self.config.model

    @property
    def minimum(self) -> int:
        """Replicas that there must be."""
        if self.stopped:
            return 0
        demanded = 1 if self.asked or self.waiting else 0
        return max(self.config.policy.min_replicas, demanded, len(self.asked_neurons))

    @property
    def may_change(self) -> bool:
        """Whether a change that could wait may happen now."""
        return self.changed_s_ago >= self.config.policy.cool_down_s


@dataclass(slots=True)
class Plan:
    """Where one model shall be, and why."""

    model: str
    neurons: list[str]
    reasons: list[str] = field(default_factory=list)
    """Of each change, in order; empty when nothing changes."""
    rejected: dict[str, str] = field(default_factory=dict)
    """Neurons that were looked at in vain."""
    lasting: set[str] = field(default_factory=set)
    """Those of them that could never hold it."""
    wanted: int = 0
    """Replicas aimed at."""
    needs: str = ""
    """The memory of a replica, for people."""

    @property
    def impossible(self) -> bool:
        """Whether no host, however idle, could hold the model."""
        return not self.neurons and bool(self.rejected) and self.lasting >= set(self.rejected)

    @property
    def why_not(self) -> str:
        """Each neuron that was looked at in vain, with its reason."""
        return "; ".join(f"{name}: {reason}" for name, reason in sorted(self.rejected.items()))
