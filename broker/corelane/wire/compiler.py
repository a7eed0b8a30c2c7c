"""Turns the tables of messages into Python functions, one pair per message and version.

`codec("FetchRequest", 12)` compiles on first use (about 1 ms) and is kept. Values are slotted
objects with Kafka's field names in snake case and Kafka's defaults; arrays are lists, uuids 16
bytes, records bytes. A field that the version does not have is left at its default by decoding
and ignored by encoding.

    Metadata = message_type("MetadataResponse")
    Broker = message_type("MetadataResponse.MetadataResponseBroker")
    raw = codec("MetadataResponse", 12).encode(Metadata(brokers=[Broker(node_id=1, ...)]))
"""

import struct
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from corelane.model import limits
from corelane.wire import primitives
from corelane.wire.errors import DecodeError
from corelane.wire.schema import Field, MessageSchema, Versions, schemas

FIXED: Final = {
    "bool": "?", "int8": "b", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I",
    "int64": "q", "float64": "d", "uuid": "16s",
}  # fmt: skip
REQUEST_ELEMENTS_MAX: Final = 2 * limits.REQUEST_ROWS_MAX
"""Array elements of a whole request: the rows, and as many topics or replicas around them.

An element of two bytes becomes an object of two hundred and takes a microsecond: without a cap,
one frame of 100 MiB would take 10 GB and stop its core for a minute.
"""

ANSWER_ELEMENTS_MAX: Final = 10_000_000
"""Of a whole answer, which only our own client decodes: metadata of millions of replicas."""

_NO_UUID: Final = bytes(primitives.UUID_BYTES)


class Message:
    """A message or a struct inside one; equal when all fields are."""

    __slots__: tuple[str, ...] = ()

    if TYPE_CHECKING:

        def __init__(self, **fields: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, n) == getattr(other, n) for n in self.__slots__)

    def __hash__(self) -> int:
        raise TypeError("messages change, so they have no hash")

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({fields})"


class Codec:
    """Encodes and decodes one version of one message."""

    __slots__ = (
        "_decode",
        "_elements_max",
        "_encode",
        "is_flexible",
        "message",
        "name",
        "version",
    )

    def __init__(self, schema: MessageSchema, version: int) -> None:
        self.name = schema.name
        self.version = version
        self.is_flexible = within(version, schema.flexible)
        self.message = message_type(schema.name)
        self._elements_max = _elements_max(schema)
        source = _Source(schema, version)
        self._decode, self._encode = source.compile()

    def decode(self, data: bytes | memoryview, position: int = 0) -> tuple[Message, int]:
        """Return the message at *position* and where it ends; DecodeError if there is none."""
        try:
            return self._decode(data, position, [self._elements_max])
        except DecodeError as fault:
            raise DecodeError(f"{self.name} v{self.version}: {fault}") from fault
        except (struct.error, IndexError, UnicodeDecodeError) as fault:
            what = f"{self.name} v{self.version} is cut or malformed"
            raise DecodeError(f"{what}: {fault}") from fault

    def encode(self, message: Message) -> bytes:
        """Return *message* as bytes; what does not fit its field is our bug: struct.error."""
        out = bytearray()
        self._encode(out, message)
        return bytes(out)


def within(version: int, bounds: Versions) -> bool:
    """Whether a version is in a range."""
    return bounds[0] <= version <= bounds[1]


@cache
def codec(name: str, version: int) -> Codec:
    """Return the codec of a message; ValueError for a version Kafka never published."""
    schema = schemas()[name]
    if not within(version, schema.versions):
        raise ValueError(f"{name} has no version {version}")
    return Codec(schema, version)


@cache
def api_keys() -> dict[int, str]:
    """Return the names of all APIs in the tables, by key."""
    return {
        schema.key: name.removesuffix("Request")
        for name, schema in schemas().items()
        if schema.key >= 0 and name.endswith("Request")
    }


@cache
def request_codec(api_key: int, version: int) -> Codec:
    """Return the codec of an API's request."""
    return codec(f"{api_keys()[api_key]}Request", version)


@cache
def response_codec(api_key: int, version: int) -> Codec:
    """Return the codec of an API's answer."""
    return codec(f"{api_keys()[api_key]}Response", version)


def valid_versions(name: str) -> Versions:
    """Return the first and last version of a message that Kafka published."""
    return schemas()[name].versions


def flexible_from(name: str) -> int | None:
    """Return the first flexible version of a message (KIP-482)."""
    first, last = schemas()[name].flexible
    return first if first <= last else None


@cache
def message_type(path: str) -> type[Message]:
    """Return the class of a message, or of a struct inside it by `Message.Struct`."""
    name, _, inner = path.partition(".")
    schema = schemas()[name]
    fields = schema.fields if not inner else _find(schema.fields, inner)
    if fields is None:
        raise KeyError(path)
    return _make_class(name, inner or name, fields)


def _find(fields: list[Field], kind: str) -> list[Field] | None:
    for field in fields:
        if field.kind == kind and field.fields:
            return field.fields
        found = _find(field.fields, kind)
        if found is not None:
            return found
    return None


def _make_class(message: str, name: str, fields: list[Field]) -> type[Message]:
    """Make a slotted class whose constructor has Kafka's defaults."""
    names = tuple(dict.fromkeys(field.name for field in fields))
    parameters, body = [], []
    for field in fields:
        default = _default(field)
        if default in {"[]", "..."}:
            made = "[]" if default == "[]" else f"{_class_name(field)}()"
            parameters.append(f"{field.name}=UNSET")
            body.append(f" self.{field.name} = {made} if {field.name} is UNSET else {field.name}")
        else:
            parameters.append(f"{field.name}={default}")
            body.append(f" self.{field.name} = {field.name}")
    source = f"def __init__(self, *, {', '.join(parameters)}):\n" + "\n".join(body)
    space: dict[str, Any] = {"UNSET": object(), "NO_UUID": _NO_UUID}
    for field in fields:
        if field.fields and not field.is_array:
            space[_class_name(field)] = message_type(f"{message}.{field.kind}")
    if not fields:
        source = "def __init__(self): pass"
    exec(source, space)  # noqa: S102 our own tables, see module docstring
    return type(name, (Message,), {"__slots__": names, "__init__": space["__init__"]})


def _class_name(field: Field) -> str:
    return f"C_{field.name}_{field.kind}"


def _default(field: Field) -> str:
    """Return the default as Python source; `...` for a struct of defaults."""
    if field.default == "null":
        return "None"
    if field.is_array:
        return "[]"
    if field.fields:
        return "..."
    if field.kind == "bool":
        return "True" if field.default == "true" else "False"
    if field.kind == "uuid":
        return "NO_UUID"
    if field.kind == "string":
        return repr(field.default)
    if field.kind in {"bytes", "records"}:
        return "b''"
    return str(int(field.default, 0)) if field.default else "0"


def _elements_max(schema: MessageSchema) -> int:
    return ANSWER_ELEMENTS_MAX if schema.name.endswith("Response") else REQUEST_ELEMENTS_MAX


class _Source:
    """Writes the source of one message's encoder and decoder."""

    def __init__(self, schema: MessageSchema, version: int) -> None:
        self.schema = schema
        self.version = version
        self.flexible = within(version, schema.flexible)
        self.space: dict[str, Any] = dict(vars(primitives)) | {"unpack_from": struct.unpack_from}
        self.lines: list[str] = []
        self.count = 0

    def compile(
        self,
    ) -> tuple[
        Callable[[bytes | memoryview, int, list[int]], tuple[Message, int]],
        Callable[[bytearray, Message], None],
    ]:
        """Return (decode, encode)."""
        number = self._struct(self.schema.fields, message_type(self.schema.name))
        exec("\n".join(self.lines), self.space)  # noqa: S102 our own tables
        return self.space[f"d{number}"], self.space[f"e{number}"]

    def _struct(self, fields: list[Field], made: type[Message]) -> int:
        """Write both functions of a struct and return the number they are named by."""
        self.count += 1
        number = self.count
        self.space[f"C{number}"] = made
        here = [f for f in fields if within(self.version, f.versions)]
        plain = [f for f in here if not within(self.version, f.tagged)]
        tagged = [f for f in here if within(self.version, f.tagged)]
        inner = {f.name: self._struct(f.fields, self._type_of(f)) for f in here if f.fields}
        decode = [f"def d{number}(b, p, g):", f" x = C{number}()"]
        encode = [f"def e{number}(o, x):"]
        run: list[Field] = []
        for field in plain:
            if field.kind in FIXED and not field.is_array:
                run.append(field)
                continue
            self._fixed_run(run, decode, encode)
            run = []
            decode += self._read(field, inner)
            encode += self._write(field, inner)
        self._fixed_run(run, decode, encode)
        if self.flexible:
            self._tags(tagged, inner, decode, encode)
        decode.append(" return x, p")
        encode.append(" return None")
        self.lines += decode + encode
        return number

    def _type_of(self, field: Field) -> type[Message]:
        return message_type(f"{self.schema.name}.{field.kind}")

    def _fixed_run(self, run: list[Field], decode: list[str], encode: list[str]) -> None:
        """Read and write neighbouring fixed-size fields with one struct."""
        if not run:
            return
        packed = struct.Struct(">" + "".join(FIXED[f.kind] for f in run))
        name = f"S{len(self.space)}"
        self.space[name] = packed
        targets = ", ".join(f"x.{f.name}" for f in run)
        decode.append(f" {targets}{',' if len(run) == 1 else ''} = {name}.unpack_from(b, p)")
        decode.append(f" p += {packed.size}")
        encode.append(f" o += {name}.pack({targets})")

    def _compact(self, field: Field) -> bool:
        if field.flexible is not None:
            return within(self.version, field.flexible)
        return self.flexible

    def _read(self, field: Field, inner: dict[str, int]) -> list[str]:
        target, compact = f"x.{field.name}", "compact_" if self._compact(field) else ""
        nullable = within(self.version, field.nullable)
        if field.is_array:
            return self._read_array(field, inner, compact=compact, nullable=nullable)
        if field.fields:
            call = f"{target}, p = d{inner[field.name]}(b, p, g)"
            if not nullable:
                return [f" {call}"]
            return [
                " p += 1",
                f" if b[p - 1] == 255: {target} = None",
                f" else: {call}",
            ]
        reader = "string" if field.kind == "string" else "bytes"
        lines = [f" {target}, p = read_{compact}{reader}(b, p)"]
        if not nullable:
            what = f"{field.name} may not be null"
            lines.append(f" if {target} is None: raise DecodeError({what!r})")
        return lines

    def _read_array(
        self, field: Field, inner: dict[str, int], *, compact: str, nullable: bool
    ) -> list[str]:
        target = f"x.{field.name}"
        lines = [f" n, p = read_{compact}count(b, p)", " if n < 0:"]
        if nullable:
            lines.append(f"  {target} = None")
        else:
            what = f"{field.name} may not be null"
            lines.append(f"  raise DecodeError({what!r})")
        many = f"over {_elements_max(self.schema)} elements"
        lines += [" else:", "  g[0] -= n", f"  if g[0] < 0: raise DecodeError({many!r})"]
        if field.kind in FIXED and field.kind != "uuid":
            kind = FIXED[field.kind]
            lines.append(f"  {target} = list(unpack_from(f'>{{n}}{kind}', b, p))")
            lines.append(f"  p += n * {struct.calcsize('>' + kind)}")
            return lines
        lines += [f"  {target} = l = []", "  for _ in range(n):"]
        if field.fields:
            lines.append(f"   v, p = d{inner[field.name]}(b, p, g)")
        elif field.kind in FIXED:
            packed = struct.Struct(">" + FIXED[field.kind])
            name = f"S{len(self.space)}"
            self.space[name] = packed
            lines += [f"   v, = {name}.unpack_from(b, p)", f"   p += {packed.size}"]
        else:
            reader = "string" if field.kind == "string" else "bytes"
            lines.append(f"   v, p = read_{compact}{reader}(b, p)")
            lines.append("   if v is None: raise DecodeError('an element may not be null')")
        lines.append("   l.append(v)")
        return lines

    def _write(self, field: Field, inner: dict[str, int]) -> list[str]:
        value, compact = f"x.{field.name}", "compact_" if self._compact(field) else ""
        if field.is_array:
            return [
                f" v = {value}",
                f" if v is None: write_{compact}count(o, -1)",
                " else:",
                f"  write_{compact}count(o, len(v))",
                f"  for y in v: {self._write_one(field, inner, compact)}",
            ]
        if field.fields:
            call = f"e{inner[field.name]}(o, {value})"
            if not within(self.version, field.nullable):
                return [f" {call}"]
            return [
                f" if {value} is None: o.append(255)",
                f" else: o.append(1); {call}",
            ]
        writer = "string" if field.kind == "string" else "bytes"
        return [f" write_{compact}{writer}(o, {value})"]

    def _write_one(self, field: Field, inner: dict[str, int], compact: str) -> str:
        if field.fields:
            return f"e{inner[field.name]}(o, y)"
        if field.kind in FIXED:
            name = f"S{len(self.space)}"
            self.space[name] = struct.Struct(">" + FIXED[field.kind])
            return f"o += {name}.pack(y)"
        return f"write_{compact}{'string' if field.kind == 'string' else 'bytes'}(o, y)"

    def _tags(
        self, tagged: list[Field], inner: dict[str, int], decode: list[str], encode: list[str]
    ) -> None:
        """Read known tags and skip others; write those that differ from their default."""
        if not tagged:
            decode.append(" _, p = read_tags(b, p)")
            encode.append(" o.append(0)")
            return
        decode += [" ts, end = read_tags(b, p)", " for t, p, size in ts:", "  stop = p + size"]
        encode.append(" ts = []")
        for field in sorted(tagged, key=lambda f: f.tag):
            read: list[str] = []
            write: list[str] = []
            if field.kind in FIXED and not field.is_array:
                self._fixed_run([field], read, write)
            else:
                read, write = self._read(field, inner), self._write(field, inner)
            decode.append(f"  if t == {field.tag}:")
            decode += [f"  {line}" for line in read]
            decode.append("   if p != stop: raise DecodeError('a tagged field has a wrong size')")
            name = f"D{len(self.space)}"
            self.space[name] = self._default_value(field)
            encode += [
                f" if x.{field.name} != {name}:",
                "  whole, o = o, bytearray()",
                *(f" {line}" for line in write),
                f"  ts.append(({field.tag}, bytes(o)))",
                "  o = whole",
            ]
        decode.append(" p = end")
        encode.append(" write_tags(o, ts)")

    def _default_value(self, field: Field) -> object:
        made = _make_class(self.schema.name, "default", [field])()
        return getattr(made, field.name)
