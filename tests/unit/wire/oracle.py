"""Draws a message twice from one random source: as ours, and as kio's, the independent oracle.

kio gives some integers a meaning (error codes, durations, points in time) and knows no other
values, so values are bounded to what it accepts. Fields are paired by their place: both follow
the order of Kafka's descriptors, and kio's names differ in their units at most.
"""

import dataclasses
import io
import random
import types
import typing
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from kio.index import load_entity_module
from kio.schema.errors import ErrorCode
from kio.serial import entity_reader, entity_writer
from kio.static.constants import EntityType

from corelane.wire.compiler import Message, message_type, within
from corelane.wire.schema import Field, MessageSchema, schemas

ELEMENTS_MAX: Final = 3
BITS: Final = {"int8": 8, "int16": 16, "uint16": 16, "int32": 32, "uint32": 32, "int64": 64}
BLOB_SIZES: Final[tuple[int, ...]] = (0, 1, 126, 127, 128, 1000, 17_000)
WORDS: Final[tuple[str, ...]] = ("", "a", "orders", "größe", "😀 smile", "x" * 200, "y" * 20_000)
UNITS: Final = ("", "ms")
NULL_IS_A_VALUE: Final = ("uuid", "datetime_i64")
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
DATETIME_MS_MAX: Final = 253_402_300_799_000  # the end of the year 9999
TIMEDELTA_MS_MAX: Final = 86_399_999 * 1000 * 1000


class Twins(NamedTuple):
    """The same values as ours and as kio's."""

    ours: Message
    theirs: Any


def all_versions() -> Iterator[tuple[str, int]]:
    """Yield every message and version of the tables."""
    for name, schema in schemas().items():
        for version in range(schema.versions[0], schema.versions[1] + 1):
            yield name, version


def kio_type(name: str, version: int) -> Any:
    """Return kio's class of a message."""
    if name.endswith("Header"):
        module = load_entity_module(kio_index_name(name), version, EntityType.header)
    elif name.endswith("Request"):
        index_name = kio_index_name(name.removesuffix("Request"))
        module = load_entity_module(index_name, version, EntityType.request)
    else:
        index_name = kio_index_name(name.removesuffix("Response"))
        module = load_entity_module(index_name, version, EntityType.response)
    return getattr(module, name)


def kio_index_name(name: str) -> str:
    """Return an API's name as kio's index spells it."""
    return "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")


def kio_encode(value: Any) -> bytes:
    """Return the bytes kio makes of one of its values."""
    out = io.BytesIO()
    entity_writer(type(value))(out, value)
    return out.getvalue()


def kio_decode(name: str, version: int, data: bytes) -> tuple[Any, int]:
    """Return kio's value of bytes, and how many it read."""
    value, size = entity_reader(kio_type(name, version))(data, 0)
    return value, size


class Draw:
    """Draws twins; `fullness` 0 takes every default and leaves arrays empty."""

    def __init__(self, schema: MessageSchema, version: int, rng: random.Random) -> None:
        self.schema = schema
        self.version = version
        self.rng = rng
        self.fullness = 1.0
        self.words = WORDS
        self.blob_sizes = BLOB_SIZES
        self.elements_max = ELEMENTS_MAX

    def message(self) -> Twins:
        """Draw a whole message."""
        made = message_type(self.schema.name)
        theirs = kio_type(self.schema.name, self.version)
        return self._struct(self.schema.fields, made, theirs)

    def _struct(self, fields: list[Field], made: type[Message], theirs: Any) -> Twins:
        here = [f for f in fields if within(self.version, f.versions)]
        kio_fields = dataclasses.fields(theirs)
        assert len(here) == len(kio_fields), (theirs, [f.name for f in here])
        twins = {}
        for field, kio_field in zip(here, kio_fields, strict=True):
            assert same_name(field.name, kio_field.name), (field.name, kio_field.name)
            twins[field.name, kio_field.name] = self._field(field, kio_field)
        ours = made(**{names[0]: pair[0] for names, pair in twins.items()})
        return Twins(ours, theirs(**{names[1]: pair[1] for names, pair in twins.items()}))

    def _field(self, field: Field, kio_field: Any) -> tuple[Any, Any]:
        is_tagged = within(self.version, field.tagged)
        assert is_tagged == ("tag" in kio_field.metadata), field.name
        if is_tagged and self.rng.random() < 0.4:
            return self._tag_default(field, kio_field)
        # kio cannot write a null in a tag unless it is the default.
        nullable = within(self.version, field.nullable) and not is_tagged
        if not is_tagged and kio_field.metadata.get("kafka_type") not in NULL_IS_A_VALUE:
            assert nullable == (types.NoneType in typing.get_args(kio_field.type)), field.name
        if nullable and self.rng.random() < max(0.3, 1 - self.fullness):
            return None, None
        inner = without_none(kio_field.type)
        assert field.is_array == (typing.get_origin(inner) is tuple), field.name
        if field.is_array:
            inner = typing.get_args(inner)[0]
            count = self.rng.randrange(self.elements_max + 1) if self.fullness else 0
            pairs = [self._one(field, inner, kio_field) for _ in range(count)]
            return [p[0] for p in pairs], tuple(p[1] for p in pairs)
        return self._one(field, inner, kio_field)

    def _tag_default(self, field: Field, kio_field: Any) -> tuple[Any, Any]:
        """Return what both libraries leave out, by either's own word."""
        ours = getattr(message_type_of(self.schema, field), field.name)
        if kio_field.default is not dataclasses.MISSING:
            return ours, kio_field.default
        zero = {"int64": 0, "int32": 0, "bool": False}[field.kind]
        kind = kio_field.metadata["kafka_type"]
        return ours, timedelta(0) if kind.startswith("timedelta") else zero

    def _one(self, field: Field, kio_inner: Any, kio_field: Any) -> tuple[Any, Any]:
        if field.fields:
            made = message_type(f"{self.schema.name}.{field.kind}")
            return self._struct(field.fields, made, without_none(kio_inner))
        return self._primitive(field.kind, kio_field)

    def _primitive(self, kind: str, kio_field: Any) -> tuple[Any, Any]:
        rng, meaning = self.rng, kio_field.metadata["kafka_type"]
        if meaning == "error_code":
            code = rng.choice(list(ErrorCode))
            return code.value, code
        if meaning.startswith("timedelta"):
            bound = 2**31 if meaning.endswith("i32") else TIMEDELTA_MS_MAX
            ms = rng.choice((0, 1, -1, 30_000, rng.randrange(-bound, bound)))
            return ms, timedelta(milliseconds=ms)
        if meaning == "datetime_i64":
            optional = types.NoneType in typing.get_args(kio_field.type)
            ms = rng.choice((0, -1 if optional else 1, rng.randrange(DATETIME_MS_MAX)))
            ms -= ms % 1000 if ms > 0 else 0
            return ms, None if ms == -1 else EPOCH + timedelta(milliseconds=ms)
        assert meaning == kind, (meaning, kind)
        return self._plain(kind)

    def _plain(self, kind: str) -> tuple[Any, Any]:
        rng = self.rng
        value: Any
        match kind:
            case "bool":
                value = rng.random() < 0.5
            case "float64":
                value = rng.choice((0.0, -1.5, 1e300, rng.random()))
            case "uuid":
                raw = rng.choice((bytes(16), rng.randbytes(16)))
                return raw, uuid.UUID(bytes=raw) if any(raw) else None
            case "string":
                value = rng.choice(self.words)
            case "bytes" | "records":
                value = rng.randbytes(rng.choice(self.blob_sizes))
            case _:
                value = self._integer(kind)
        return value, value

    def _integer(self, kind: str) -> int:
        bits = BITS[kind]
        low = 0 if kind.startswith("u") else -(2 ** (bits - 1))
        high = low + 2**bits - 1
        return self.rng.choice((low, high, 0, 1, 100, self.rng.randint(low, high)))


def message_type_of(schema: MessageSchema, field: Field) -> Message:
    """Return a fresh value of the struct of *schema* that has *field*."""

    def search(name: str, fields: list[Field]) -> str:
        if any(f is field for f in fields):
            return name
        found = (search(f"{schema.name}.{f.kind}", f.fields) for f in fields if f.fields)
        return next((n for n in found if n), "")

    return message_type(search(schema.name, schema.fields))()


def same_name(ours: str, theirs: str) -> bool:
    """Whether two names differ in their unit at most, which kio's types carry."""
    bare = ours.replace("_", "")
    return any(bare.removesuffix(unit) == theirs.replace("_", "") for unit in UNITS)


def without_none(kind: Any) -> Any:
    """Return the type that is optional."""
    inner = [t for t in typing.get_args(kind) if t is not types.NoneType]
    is_union = typing.get_origin(kind) in (types.UnionType, typing.Union)
    return inner[0] if is_union and len(inner) == 1 else kind
