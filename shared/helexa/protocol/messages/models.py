# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Models: their names, what they can do, how they are run, how many are wanted."""

from functools import lru_cache
from typing import ClassVar, Self

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from helexa.protocol.messages.base import Message, Record

NAMES_KEPT = 4096
"""Models' names without metadata that are made once: every message brings the same few."""


class ModelId(str):
    """A model's public name: opaque text, equal by its text, with optional metadata.

    On the wire it is a string, or `{"0": name, "metadata": {…}}` when it has metadata.
    """

    __slots__ = ("metadata",)
    metadata: dict[str, str]
    MAX_LENGTH: ClassVar[int] = 255

    def __new__(cls, name: str, metadata: dict[str, str] | None = None) -> Self:
        """Return the id of the model called `name`."""
        made = super().__new__(cls, name)
        made.metadata = metadata or {}
        return made

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[object], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.read,
            serialization=core_schema.plain_serializer_function_ser_schema(cls.write),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {
            "anyOf": [
                {"type": "string", "minLength": 1, "maxLength": cls.MAX_LENGTH},
                {
                    "type": "object",
                    "properties": {
                        "0": {"type": "string"},
                        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
                    },
                    "required": ["0"],
                },
            ]
        }

    @classmethod
    def read(cls, value: object) -> Self:
        """Return the id that `value` is on the wire.

        Raises:
            ValueError: it is none.
        """
        if type(value) is str and 0 < len(value) <= cls.MAX_LENGTH:
            return cls._named(value)
        if isinstance(value, cls):
            return value
        metadata: object = None
        if isinstance(value, dict):
            metadata = value.get("metadata")
            value = value.get("0")
        if not isinstance(value, str) or not 0 < len(value) <= cls.MAX_LENGTH:
            raise ValueError(f"a model's name is text of 1 to {cls.MAX_LENGTH} characters")
        if not isinstance(metadata, dict) or not metadata:
            return cls._named(value)
        return cls(value, {str(key): str(text) for key, text in metadata.items()})

    @classmethod
    @lru_cache(NAMES_KEPT)
    def _named(cls, name: str) -> Self:
        return cls(name)

    def write(self) -> str | dict[str, str | dict[str, str]]:
        """Return what this is on the wire."""
        if self.metadata:
            return {"0": str(self), "metadata": self.metadata}
        return str(self)


class WorkloadClass:
    """The known classes of work. A class that is not listed here still travels."""

    CHAT_INTERACTIVE = "ChatInteractive"
    CHAT_BULK = "ChatBulk"
    COMPLETION = "Completion"
    EMBEDDING = "Embedding"
    VISION_CAPTION = "VisionCaption"
    AUDIO_TRANSCRIPTION = "AudioTranscription"


class Workload:
    """What a model can be asked to do, as listed in its capability."""

    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"
    VISION = "vision"
    AUDIO = "audio"


class BackendKind:
    """The known kinds of backend. A neuron says which of them it can run."""

    LLAMA_CPP = "llama_cpp"
    VLLM = "vllm"
    OPENAI_PROXY = "openai_proxy"
    COMMAND = "command"


class ContinuationWay:
    """The known ways in which a backend is told to go on from a partial answer."""

    ASSISTANT_MESSAGE = "assistant_message"
    """A last message of the assistant is continued (llama.cpp)."""
    CONTINUE_FINAL_MESSAGE = "continue_final_message"
    """The same, where the request says so (vLLM, SGLang)."""
    NONE = "none"


class ModelCapability(Record):
    """What a model can do and what it needs. `None` means not known, never zero."""

    workloads: tuple[str, ...] = (Workload.CHAT, Workload.COMPLETION)
    max_context_tokens: int | None = None
    throughput_tokens_per_s: float | None = None
    vram_bytes: int | None = None
    memory_bytes: int | None = None
    tools: bool = True
    continues_partial: bool = False
    """The backend can go on from a partial assistant message."""


class Price(Record):
    """Price hints in micro-units (1e-6) of `currency`; `None` means no price is set, not free."""

    currency: str = "USD"
    input_per_million_tokens: int | None = None
    cached_per_million_tokens: int | None = None
    output_per_million_tokens: int | None = None
    per_request: int | None = None


class ModelPolicy(Record):
    """How many replicas are wanted, where, and how readily they may change."""

    min_replicas: int = Field(default=1, ge=0)
    max_replicas: int | None = Field(default=None, ge=1)
    """`None`: as many as there are neurons."""
    on_every_neuron: bool = False
    """Load a replica on each neuron that can hold one; for small models."""
    pinned_neurons: tuple[str, ...] = ()
    """Only these neurons may hold it; empty means any."""
    priority: int = 0
    """A model of higher priority may displace one of lower priority, never the reverse."""
    cool_down_s: float = Field(default=60.0, ge=0)
    idle_unload_s: float | None = Field(default=None, gt=0)
    """Unload down to `min_replicas` after so long without a request; `None`: never."""


class ModelConfig(Record):
    """How a model is run, as the catalogue keeps it and a neuron is told it."""

    model: ModelId
    backend_kind: str
    source: str | None = None
    """A path, `hf:org/repo/file` or an https URL of the weights; `embedded:helexa-tiny` for the
    model that comes with Helexa."""
    projector: str | None = None
    """The same for an image or audio projector."""
    command: tuple[str, ...] = ()
    """Program and leading arguments that replace the backend's own; `${PORT}`, `${HOST}`,
    `${MODEL}`, `${MODEL_PATH}`, `${API_KEY}` are filled in."""
    args: tuple[str, ...] = ()
    """Arguments appended to the backend's command."""
    env: dict[str, str] = {}
    listen_endpoint: str | None = None
    """The base URL of a server that already runs (`openai_proxy`), else a fixed
    `http://127.0.0.1:port` for a spawned one; `None` takes a free port."""
    upstream_model: str | None = None
    """The name to ask an `openai_proxy` for, where it differs from `model`."""
    api_key_file: str | None = None
    """A file on the neuron with the key of an `openai_proxy`; the key itself never travels."""
    continuation: str | None = None
    """A `ContinuationWay`; `None`: the backend's own, which an `openai_proxy` and a `command` do
    not have."""
    whole_answers: bool | None = None
    """Whether it is asked for a whole answer where the client wants no stream; `None`: unless it
    is known to go on with one when it is left."""
    context_tokens: int | None = Field(default=None, gt=0)
    """Context of one slot."""
    slots: int | None = Field(default=None, gt=0)
    """Requests served at once by one replica."""
    aliases: tuple[str, ...] = ()
    capability: ModelCapability = ModelCapability()
    price: Price = Price()
    policy: ModelPolicy = ModelPolicy()
    metadata: dict[str, str] = {}


class ModelState:
    """The states of a model on a neuron."""

    UNCONFIGURED = "unconfigured"
    CONFIGURED = "configured"
    LOADING = "loading"
    LOADED = "loaded"
    UNLOADING = "unloading"
    UNLOADED = "unloaded"
    FAILED = "failed"


class ModelStatus(Message):
    """One model on one neuron, now."""

    model: ModelId
    state: str
    servable: bool = True
    """A loaded replica that fails its probe is not servable; absent means servable."""
    slots_total: int = 0
    slots_busy: int = 0
    capability: ModelCapability = ModelCapability()
    price: Price = Price()
    config_digest: str = ""
    """Digest of the `ModelConfig` in use, so that a change is seen."""
    progress: float | None = None
    """Of a load or download, 0 to 1."""
    error: str | None = None
    tokens_per_s: float | None = None
    """Output tokens a second over the last seconds, all slots."""
    requests_done: int = 0
    requests_failed: int = 0
    idle_s: float = 0.0
    """Time since a request last used it."""
    memory_bytes: int | None = None
    """Measured use of the backend process."""
    prefix_digests: bytes = b""
    """Of prefixes that the backend has read lately, the newest last. Of a prompt there are the
    digest of all of it and the longest one that it had in common with an earlier prompt."""
