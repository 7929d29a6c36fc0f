# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The models that the site offers."""

import logging
from collections.abc import Mapping

from helexa.bus.buckets import Bucket, Entry, Mirror
from helexa.bus.client import Bus
from helexa.protocol import resources
from helexa.protocol.codec import digest, pack
from helexa.protocol.errors import BadRequestError, ConflictError, UnknownModelError
from helexa.protocol.messages.models import ModelConfig

_log = logging.getLogger(__name__)


class Catalogue:
    """The bucket of model configurations and this replica's copy of it."""

    def __init__(self, bus: Bus) -> None:
        """Read and write over `bus`; `mirror` has to be run."""
        self._bucket = Bucket(bus, resources.MODELS, ModelConfig)
        self.mirror = Mirror(self._bucket)

    @property
    def models(self) -> Mapping[str, ModelConfig]:
        """The models by name."""
        return self.mirror.values

    def resolve(self, name: str) -> ModelConfig:
        """Return the model called `name`, or of which that is an alias.

        Raises:
            UnknownModelError: there is none.
        """
        models = self.models
        if name in models:
            return models[name]
        for config in models.values():
            if name in config.aliases:
                return config
        raise UnknownModelError(f"there is no model {name!r}", param="model")

    async def put(self, config: ModelConfig) -> None:
        """Add a model, or change it.

        Raises:
            BadRequestError: the configuration contradicts itself.
            ConflictError: it contradicts another model.
            UnavailableError: the bucket cannot be reached.
        """
        check_alone(config)
        check_beside(config, self.models)
        revision = await self._bucket.put(config.model, config)
        # Whoever hears that it is done may order it loaded at once, from this replica.
        self.mirror.learn(config.model, Entry(config, revision))

    async def create(self, config: ModelConfig) -> bool:
        """Add a model unless it exists; return whether it was added."""
        try:
            await self._bucket.replace(config.model, config, None)
        except ConflictError:
            return False
        return True

    async def remove(self, name: str) -> None:
        """Take a model out; nothing happens if it is not there."""
        await self._bucket.delete(name)

    def report_conflicts(self) -> list[str]:
        """Log and return what is wrong in the catalogue as it is: it may be older than a rule."""
        found = []
        for name, config in self.models.items():
            try:
                check_alone(config)
                check_beside(config, self.models)
            except (BadRequestError, ConflictError) as error:
                found.append(f"{name}: {error.message}")
                _log.error("catalogue_conflict", extra={"model": name, "error": error.message})
        return found


def config_digest(config: ModelConfig) -> str:
    """Return what a neuron reports as the digest of this configuration."""
    return digest(pack(config))


def check_alone(config: ModelConfig) -> None:
    """Refuse a configuration that cannot be meant.

    Raises:
        BadRequestError: it contradicts itself; `param` names the field.
    """
    policy = config.policy
    if not config.backend_kind:
        raise BadRequestError("a model needs a backend_kind", param="backend_kind")
    if policy.max_replicas is not None and policy.max_replicas < policy.min_replicas:
        raise BadRequestError(
            f"max_replicas {policy.max_replicas} is less than min_replicas {policy.min_replicas}",
            param="policy.max_replicas",
        )
    if len(set(config.aliases)) < len(config.aliases) or config.model in config.aliases:
        raise BadRequestError("an alias is given twice or is the model's name", param="aliases")
    if "" in config.aliases:
        raise BadRequestError("an alias is empty", param="aliases")


def check_beside(config: ModelConfig, models: Mapping[str, ModelConfig]) -> None:
    """Refuse a configuration whose names would mean two models.

    Raises:
        ConflictError: a name or alias belongs to another model.
    """
    for other in models.values():
        if other.model == config.model:
            continue
        taken = {other.model, *other.aliases} & {config.model, *config.aliases}
        if taken:
            raise ConflictError(
                f"{', '.join(sorted(taken))} already means {other.model}", param="aliases"
            )
