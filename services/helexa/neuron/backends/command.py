# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Any program that speaks OpenAI's HTTP, by configuration alone."""

from collections.abc import Sequence

from typing_extensions import override

from helexa.neuron.backends.place import Place
from helexa.neuron.backends.spawned import SpawnedBackend
from helexa.protocol.errors import ModelFailedError

HEALTH_PATH = "health_path"
"""Key in a model's metadata: the path that answers 200 when the program can serve."""


class CommandBackend(SpawnedBackend):
    """The program and arguments of the configuration, with its placeholders filled in.

    It must listen on `${HOST}:${PORT}`. It is ready when `/health`, or `/v1/models` where it has no
    such path, answers 200; the metadata's `health_path` replaces both.
    """

    @override
    async def check(self) -> None:
        if not self.config.command:
            raise ModelFailedError("the model's configuration names no command")
        path = self.config.metadata.get(HEALTH_PATH)
        if path is not None and not (
            path.startswith("/") and path.isprintable() and " " not in path
        ):
            raise ModelFailedError("the model's health_path is not a path")
        self.health_paths = (path,) if path else ("/health", "/v1/models")

    @override
    def command(self, place: Place) -> Sequence[str]:
        return self.config.command
