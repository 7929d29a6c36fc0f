# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Reads a model's configuration as a person writes it."""

from collections.abc import Mapping
from difflib import get_close_matches

from pydantic import BaseModel

from helexa.protocol.errors import BadRequestError
from helexa.protocol.messages.models import ModelCapability, ModelConfig, ModelPolicy, Price

_NESTED: Mapping[str, type[BaseModel]] = {
    "capability": ModelCapability,
    "price": Price,
    "policy": ModelPolicy,
}


def read_config(name: str, fields: Mapping[str, object]) -> ModelConfig:
    """Return the configuration of the model called `name`.

    Records on the bus keep fields that the reader does not know, since a newer version may. What a
    person writes may not have any: it would be a slip that nobody notices.

    Raises:
        BadRequestError: an unknown field, or another model's name; `param` names the field.
        ValidationError: a field has a wrong value.
    """
    _refuse_unknown(ModelConfig, fields, "")
    for part, kind in _NESTED.items():
        inner = fields.get(part)
        if isinstance(inner, dict):
            _refuse_unknown(kind, inner, f"{part}.")
    config = ModelConfig.model_validate({"model": name, **fields})
    if config.model != name:
        raise BadRequestError(
            f"the body is about {config.model}, the address about {name}", param="model"
        )
    return config


def _refuse_unknown(kind: type[BaseModel], fields: Mapping[str, object], prefix: str) -> None:
    for key in fields:
        if key not in kind.model_fields:
            close = get_close_matches(str(key), kind.model_fields, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise BadRequestError(f"unknown field {prefix}{key}{hint}", param=f"{prefix}{key}")
