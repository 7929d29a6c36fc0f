# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What all wire types share."""

import msgspec
from pydantic import BaseModel, ConfigDict

PROTOCOL_VERSION = 1
"""Rises when an old peer could misread a new one; new optional fields do not raise it."""


class Message(BaseModel):
    """A value that crosses the bus. Fields that the reader does not know are dropped."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        protected_namespaces=(),
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )


class Record(Message):
    """A value that is stored or relayed. Fields that the reader does not know are kept."""

    model_config = ConfigDict(extra="allow")


class HotMessage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A message of every request, which msgspec makes, writes and reads in a quarter of the time.

    The same on the wire as a `Message` with its fields. Types and ranges are checked where it is
    read, not where it is made.
    """


AnyMessage = Message | HotMessage
