# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Brings a model's files to this host, before its runtime starts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from helexa.neuron.tiny import files as tiny
from helexa.protocol.errors import BadRequestError, ModelFailedError
from helexa.protocol.messages.models import BackendKind, ModelConfig

EMBEDDED = f"embedded:{tiny.MODEL_NAME}"
"""The source of the model that comes with Helexa."""

_FETCHES_ITSELF = frozenset({BackendKind.VLLM, BackendKind.OPENAI_PROXY})
"""Kinds that are told where weights are, or need none."""

Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where a model's files lie on this host."""

    model: Path | None = None
    projector: Path | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """Where weights come from and where they are kept."""

    models_dir: Path
    hub_endpoint: str = "https://huggingface.co"
    hub_token: str | None = field(default=None, repr=False)

    async def fetch(self, config: ModelConfig, progress: Progress) -> ModelFiles:
        """Return the files that `config` names, after bringing what is not here yet.

        Raises:
            BadRequestError: a source names no place.
            ModelFailedError: a file could not be brought.
        """
        if config.backend_kind in _FETCHES_ITSELF:
            return ModelFiles()
        model = await self._bring(config.source, tiny.model_path(), progress)
        projector = await self._bring(config.projector, tiny.projector_path(), progress)
        return ModelFiles(model, projector)

    async def _bring(self, source: str | None, embedded: Path, progress: Progress) -> Path | None:
        if source is None:
            return None
        if source == EMBEDDED:
            return embedded
        # An HTTP client takes long to import and much memory, and most hosts download nothing.
        from helexa.neuron import hub  # noqa: PLC0415

        def told(done: hub.DownloadProgress) -> None:
            if done.total_bytes:
                progress(min(1.0, done.received_bytes / done.total_bytes))

        try:
            return await hub.fetch(
                source,
                self.models_dir,
                endpoint=self.hub_endpoint,
                token=self.hub_token,
                progress=told,
            )
        except hub.SourceError as error:
            raise BadRequestError(str(error), param="source") from error
        except hub.DownloadError as error:
            raise ModelFailedError(str(error), retry_after_s=error.retry_after_s or None) from error
