# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Messages to msgpack and back; the one module that knows msgpack.

Two libraries: msgspec reads in half the time, msgpack refuses to write what is no wire type (a set,
a UUID, a datetime without a zone), for which msgspec finds a text.
"""

import hashlib
from typing import Generic, TypeVar, cast

import msgpack
import msgspec
from pydantic import ValidationError

from helexa.protocol.errors import MalformedError
from helexa.protocol.messages.base import AnyMessage, HotMessage, Message
from helexa.protocol.messages.models import ModelId

MessageT = TypeVar("MessageT", bound=AnyMessage)
ModelT = TypeVar("ModelT", bound=Message)
RecordT = TypeVar("RecordT", bound=HotMessage)

Plain = None | bool | int | float | str | bytes | list["Plain"] | dict[str, "Plain"]
"""What msgpack itself can carry."""

Signable = bool | int | str | bytes | list["Signable"] | dict[str, "Signable"]
"""What a signed record may hold: no floats and no nulls, so that it has one encoding."""

_SCALARS = frozenset((bool, int, str, bytes))
_TEXT = frozenset((str,))


def pack(message: AnyMessage) -> bytes:
    """Return `message` as a msgpack map."""
    if isinstance(message, HotMessage):
        return _HOT_ENCODER.encode(message)
    return _PACKING.pack(message.__pydantic_serializer__.to_python(message))


def unpack(kind: type[MessageT], data: bytes) -> MessageT:
    """Return the message of type `kind` in `data`.

    Raises:
        MalformedError: `data` is not msgpack, or not a `kind`.
    """
    decoder = _HOT_DECODERS.get(kind)
    if decoder is None and issubclass(kind, Message):
        return _validated(kind, data)
    try:
        if decoder is None:
            decoder = msgspec.msgpack.Decoder(kind, dec_hook=_read_name)
            _HOT_DECODERS[kind] = decoder
        return cast("MessageT", decoder.decode(data))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        _, _, where = str(error).partition(" - at `$.")
        raise MalformedError(f"{kind.__name__}: {error}", param=where.rstrip("`")) from error


def _validated(kind: type[ModelT], data: bytes) -> ModelT:
    try:
        return cast("ModelT", kind.__pydantic_validator__.validate_python(unpack_plain(data)))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MalformedError(f"{kind.__name__}: {where}: {first['msg']}", param=where) from error


def _read_name(kind: type[object], value: object) -> object:
    del kind
    return ModelId.read(value)


def _write_name(value: object) -> object:
    if isinstance(value, ModelId):
        return value.write()
    raise TypeError(f"{type(value).__name__} cannot travel")


def pack_plain(value: object) -> bytes:
    """Return the msgpack of lists, maps, strings, bytes and numbers."""
    return _PACKING.pack(value)


def unpack_plain(data: bytes) -> Plain:
    """Return what `data` holds.

    Raises:
        MalformedError: `data` is not msgpack.
    """
    try:
        return cast("Plain", _DECODER.decode(data))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError("not a msgpack message") from error


def pack_numbers(values: tuple[int | bytes, ...]) -> bytes:
    """Return the msgpack of numbers and bytes: the same as `pack_plain`, at a fifth of its cost."""
    return _ENCODER.encode(values)


def pack_canonical(value: Signable) -> bytes:
    """Return the only valid encoding of `value`: keys sorted, no floats, no nulls.

    Raises:
        TypeError: `value` holds something that has no canonical form.
    """
    if (
        type(value) is dict
        and _TEXT.issuperset(map(type, value))
        and _SCALARS.issuperset(map(type, value.values()))
    ):
        # Most of what is signed is a flat map, at a tenth of the cost.
        return _SORTING_ENCODER.encode(value)
    return pack_plain(_sorted(value))


def unpack_canonical(data: bytes) -> Signable:
    """Return what `data` holds, if `data` is its canonical encoding.

    Raises:
        MalformedError: another encoding of the same value, or a value that may not be signed.
    """
    value = cast("Signable", unpack_plain(data))
    try:
        if pack_canonical(value) == data:
            return value
    except TypeError as error:
        raise MalformedError("the record holds values that cannot be signed") from error
    raise MalformedError("the record is not in canonical form")


class Canonical(Generic[RecordT]):
    """Structs of one type, or of one union of types, in their only valid encoding.

    The same bytes as `pack_canonical` of a map with their fields, at a tenth of its cost. Neither
    floats nor `None` may stand in a field that is written.
    """

    def __init__(self, kind: object) -> None:
        """Read and write what is a `kind`."""
        self._decoder = cast(
            "msgspec.msgpack.Decoder[RecordT]", msgspec.msgpack.Decoder(cast("type", kind))
        )

    def pack(self, record: RecordT) -> bytes:
        """Return the encoding of `record`.

        Raises:
            MalformedError: a number in it has no encoding.
        """
        try:
            return _CANONICAL_ENCODER.encode(record)
        except OverflowError as error:
            raise MalformedError("a number is out of range") from error

    def unpack(self, data: bytes) -> RecordT:
        """Return the record in `data`, with its fields checked.

        Raises:
            MalformedError: not a record of this type, or not in canonical form.
        """
        try:
            record = self._decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedError(str(error)) from error
        if _CANONICAL_ENCODER.encode(record) != data:
            raise MalformedError("the record is not in canonical form")
        return record


class _Packing:
    """Packs with one packer as long as its buffer, which never shrinks, is small."""

    KEPT_BYTES = 256 * 1024

    def __init__(self) -> None:
        self._packer = msgpack.Packer(datetime=True)

    def pack(self, value: object) -> bytes:
        data = cast("bytes", self._packer.pack(value))
        if len(data) > self.KEPT_BYTES:
            self._packer = msgpack.Packer(datetime=True)
        return data


_PACKING = _Packing()
_DECODER = msgspec.msgpack.Decoder()
_ENCODER = msgspec.msgpack.Encoder()
_HOT_DECODERS: dict[type[object], msgspec.msgpack.Decoder[object]] = {}
_HOT_ENCODER = msgspec.msgpack.Encoder(enc_hook=_write_name)
_CANONICAL_ENCODER = msgspec.msgpack.Encoder(order="sorted")
_SORTING_ENCODER = msgspec.msgpack.Encoder(order="deterministic")


def digest(data: bytes) -> str:
    """Return the SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _sorted(value: Signable) -> Signable:
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a signed map has text keys only")
        return {
            key: held if type(held) in _SCALARS else _sorted(held)
            for key, held in sorted(value.items())
        }
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    if isinstance(value, bool | int | str | bytes):
        return value
    raise TypeError(f"{type(value).__name__} has no canonical form")
