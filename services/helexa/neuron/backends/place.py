# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Where one start of a server listens, and what its command is told of it."""

import re
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from helexa.neuron.backends.client import Address
from helexa.neuron.backends.ports import is_free
from helexa.protocol.errors import ModelFailedError
from helexa.protocol.messages.models import ModelConfig

_HOST = "127.0.0.1"
_PLACEHOLDER = re.compile(r"\$\{(PORT|HOST|MODEL|MODEL_PATH|API_KEY)\}")


@dataclass(frozen=True, slots=True)
class Place:
    """An address of this host, and the key that the server there asks for."""

    host: str
    port: int
    api_key: str
    """Of this start alone, so that nobody else on the host can use the server."""
    key_file: Path
    """Holds the key while the server starts: arguments can be read by every user of the host."""

    @property
    def url(self) -> str:
        """The server's base URL."""
        return f"http://{self.host}:{self.port}"

    def fill(self, text: str, config: ModelConfig, model_path: Path | None) -> str:
        """Return `text` with `${PORT}` and its like filled in; other dollar signs stay."""
        values = {
            "PORT": str(self.port),
            "HOST": self.host,
            "MODEL": str(config.model),
            "MODEL_PATH": str(model_path or ""),
            "API_KEY": self.api_key,
        }
        return _PLACEHOLDER.sub(lambda match: values[match[1]], text)


def fixed_port(config: ModelConfig) -> int | None:
    """Return the port that the configuration names, `None` where any will do.

    Raises:
        ModelFailedError: its `listen_endpoint` is no URL.
    """
    endpoint = config.listen_endpoint
    if endpoint is None or "${PORT}" in endpoint:
        return None
    return _address(endpoint).port


@contextmanager
def taken_place(config: ModelConfig, choose_port: Callable[[], int]) -> Iterator[Place]:
    """Choose an address and a key; the key's file is there until the block ends.

    Raises:
        ModelFailedError: the configured `listen_endpoint` is no URL, or its port is taken.
    """
    port = fixed_port(config)
    host = _HOST if port is None else _address(config.listen_endpoint or "").host
    if port is not None and not is_free(host, port):
        raise port_taken(port)
    with tempfile.NamedTemporaryFile("w", prefix="helexa-key-") as file:
        key = secrets.token_urlsafe(32)
        file.write(key)
        file.flush()
        yield Place(host, port or choose_port(), key, Path(file.name))


def port_taken(port: int) -> ModelFailedError:
    """Return the error for a configured port on which another program listens."""
    return ModelFailedError(f"port {port} is taken by another program")


def _address(endpoint: str) -> Address:
    try:
        return Address.parse(endpoint)
    except ValueError as error:
        raise ModelFailedError(f"the model's listen_endpoint is wrong: {error}") from error
