# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a neuron knows of one model, and which changes of its state are possible."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from helexa.protocol.codec import digest, pack
from helexa.protocol.errors import ConflictError
from helexa.protocol.messages.models import ModelConfig, ModelId, ModelState

MOVES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        ModelState.UNCONFIGURED: frozenset({ModelState.CONFIGURED}),
        ModelState.CONFIGURED: frozenset({ModelState.LOADING}),
        ModelState.LOADING: frozenset({ModelState.LOADED, ModelState.FAILED, ModelState.UNLOADED}),
        ModelState.LOADED: frozenset({ModelState.UNLOADING, ModelState.LOADING}),
        ModelState.UNLOADING: frozenset({ModelState.UNLOADED}),
        ModelState.UNLOADED: frozenset({ModelState.CONFIGURED, ModelState.LOADING}),
        ModelState.FAILED: frozenset(
            {ModelState.CONFIGURED, ModelState.LOADING, ModelState.UNLOADED}
        ),
    }
)
"""From each state, the states that may follow it."""

_IN_USE = frozenset({ModelState.LOADING, ModelState.LOADED, ModelState.UNLOADING})


def config_digest(config: ModelConfig) -> str:
    """Return a digest that differs when any field differs, unknown ones included."""
    return digest(pack(config))


@dataclass(slots=True)
class ModelRecord:
    """One model: what was ordered, what runs, and the state in between."""

    model: ModelId
    state: str = ModelState.UNCONFIGURED
    config: ModelConfig | None = None
    """The newest configuration, which the next load takes."""
    running: ModelConfig | None = None
    """The configuration of the load that is under way or done."""
    error: str | None = None
    progress: float | None = None
    _digested: tuple[ModelConfig, str] | None = None

    def configure(self, config: ModelConfig) -> bool:
        """Take a configuration and return whether it is news.

        A model that is in use keeps its state, and takes the change at its next load.
        """
        if self.config is not None and config_digest(self.config) == config_digest(config):
            return False
        self.config = config
        if self.state not in _IN_USE and self.state != ModelState.CONFIGURED:
            self.move(ModelState.CONFIGURED)
        return True

    def move(self, state: str, *, error: str | None = None) -> None:
        """Change the state.

        Raises:
            ConflictError: `state` cannot follow the present one.
        """
        if state not in MOVES[self.state]:
            raise ConflictError(f"{self.model} is {self.state} and cannot become {state}")
        self.state = state
        self.error = error
        self.progress = 0.0 if state == ModelState.LOADING else None
        if state == ModelState.LOADING:
            self.running = self.config
        elif state in (ModelState.UNLOADED, ModelState.FAILED):
            self.running = None

    @property
    def is_current(self) -> bool:
        """Whether the model is loaded as its newest configuration says."""
        return (
            self.state == ModelState.LOADED
            and self.running is not None
            and self.config is not None
            and (
                self.running is self.config
                or config_digest(self.running) == config_digest(self.config)
            )
        )

    @property
    def digest(self) -> str:
        """The digest of the configuration in use, else of the one that the next load takes."""
        config = self.running or self.config
        if config is None:
            return ""
        # Every report asks, and a configuration never changes.
        if self._digested is None or self._digested[0] is not config:
            self._digested = (config, config_digest(config))
        return self._digested[1]
