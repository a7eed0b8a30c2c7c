r"""What `consume --template` prints of a record: the verbs, which are rpk's.

    %t topic   %k key   %v value              text: {hex} {base64} {base64raw} {unpack[<I]}
    %p partition   %o offset   %e leader epoch   %x producer id   %y producer epoch
    %T %K %V  bytes of topic, key, value      %H number of headers      %i number of the record
    %[ %| %]  the partition's first offset, last stable offset, high watermark
                                              numbers: {ascii} {hex64} {big32} {little16} {bool} ...
    %d timestamp in ms                        {strftime[%F]} {go[2006-01-02]}, or as a number
    %h{%k=%v }  each header                   %h alone prints name=value, between commas
    %a{compression}                           and timestamp-type, transactional-bit, control-bit

A null prints nothing and has the size -1. The grammar around the verbs is in layout.py.
"""

import base64
import itertools
from collections.abc import Callable
from typing import Final

from corelane.model.record import record
from corelane.wire.records import Headers, Record
from corelane_cli.layout import FormatError, Literal, Verb, refuse, tokenize
from corelane_cli.number_formats import WRITERS
from corelane_cli.time_formats import go_layout, strftime
from corelane_cli.unpack import UnpackError, compile_unpack
from corelane_client.fetching import Watermarks

Part = Callable[[Record], bytes]
_Number = Callable[[Record], int]

CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd")


@record
class Surroundings:
    """What a template may print beside the record."""

    watermarks: Callable[[str, int], Watermarks] | None = None
    """The ends of a partition; None where they are not known."""


def _size(data: bytes | None) -> int:
    return -1 if data is None else len(data)


def _headers(headers: Headers) -> bytes:
    return b",".join(name.encode() + b"=" + (value or b"") for name, value in headers)


_TEXTS: Final[dict[str, Part]] = {
    "t": lambda record: record.topic.encode(),
    "k": lambda record: record.key or b"",
    "v": lambda record: record.value or b"",
}
_NUMBERS: Final[dict[str, _Number]] = {
    "p": lambda record: record.partition,
    "o": lambda record: record.offset,
    "e": lambda record: record.origin.leader_epoch,
    "d": lambda record: record.timestamp_ms,
    "x": lambda record: record.origin.producer_id,
    "y": lambda record: record.origin.producer_epoch,
    "T": lambda record: len(record.topic.encode()),
    "K": lambda record: _size(record.key),
    "V": lambda record: _size(record.value),
    "H": lambda record: len(record.headers),
}
_MARKS: Final[dict[str, Callable[[Watermarks], int]]] = {
    "[": lambda found: found.log_start,
    "|": lambda found: found.last_stable,
    "]": lambda found: found.high_watermark,
}
_ATTRIBUTES: Final[dict[str, _Number]] = {
    "compression": lambda record: record.origin.attributes & 0x07,
    "timestamp-type": lambda record: record.origin.attributes >> 3 & 1,
    "transactional-bit": lambda record: record.origin.attributes >> 4 & 1,
    "control-bit": lambda record: record.origin.attributes >> 5 & 1,
}
_VERBS: Final = " ".join(f"%{letter}" for letter in (*_TEXTS, *_NUMBERS, "h", "a", "i", *_MARKS))
_TEXT_WAYS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "hex": lambda data: data.hex().encode(),
    "base64": base64.b64encode,
    "base64raw": lambda data: base64.b64encode(data).rstrip(b"="),
}
_IN_HEADERS: Final = "kvKV"


def compile_template(text: str, surroundings: Surroundings | None = None) -> Part:
    """Return the function that prints a record as *text* says. Raises FormatError.

    The function counts its calls, for %i.
    """
    around = surroundings or Surroundings()
    counter = itertools.count(1)
    return _joined([_part(token, around, counter) for token in tokenize(text)])


def _joined(parts: list[Part]) -> Part:
    if len(parts) == 1:
        return parts[0]
    return lambda record: b"".join([part(record) for part in parts])


def _part(token: Literal | Verb, around: Surroundings, counter: "itertools.count[int]") -> Part:
    """Return what one token prints."""
    if isinstance(token, Literal):
        data = token.data
        return lambda _: data
    letter = token.letter
    if letter in _TEXTS:
        return _text(token, _TEXTS[letter])
    if letter == "d" and token.text is not None:
        write = (strftime if token.modifier == "strftime" else go_layout)(token.text)
        return lambda record: write(record.timestamp_ms)
    if letter in _NUMBERS:
        return _number(token, _NUMBERS[letter])
    if letter in _MARKS:
        return _mark(token, around)
    if letter == "i":
        return _number(token, lambda _: next(counter))
    if letter == "a":
        return _attribute(token)
    if letter == "h":
        return _each_header(token)
    raise refuse(token, f"it is not known; there are {_VERBS} and %% %{{ %}}")


def _text(verb: Verb, part: Part) -> Part:
    if not verb.modifier:
        return part
    if verb.modifier == "unpack" and verb.text is not None:
        try:
            unpack = compile_unpack(verb.text)
        except UnpackError as error:
            raise refuse(verb, str(error)) from error
        return lambda record: unpack(part(record))
    way = _TEXT_WAYS.get(verb.modifier)
    if way is None:
        known = ", ".join([*_TEXT_WAYS, "unpack[...]"])
        raise refuse(verb, f"this way to print text is not known; there are {known}")
    return lambda record: way(part(record))


def _number(verb: Verb, number: _Number) -> Part:
    write = WRITERS.get(verb.modifier or "ascii") if verb.text is None else None
    if write is None:
        known = ", ".join(WRITERS)
        if verb.letter == "d":
            known += ", strftime[...], go[...]"
        raise refuse(verb, f"this way to print a number is not known; there are {known}")
    return lambda record: write(number(record))


def _mark(verb: Verb, around: Surroundings) -> Part:
    watermarks, of = around.watermarks, _MARKS[verb.letter]
    if watermarks is None:
        raise refuse(verb, "only consume knows it")
    return _number(verb, lambda record: of(watermarks(record.topic, record.partition)))


def _attribute(verb: Verb) -> Part:
    name, semicolon, way = verb.modifier.partition(";")
    attribute = _ATTRIBUTES.get(name)
    if attribute is None or verb.text is not None:
        raise refuse(verb, f"it takes one of {', '.join(_ATTRIBUTES)}")
    if name == "compression" and not semicolon:
        return lambda record: CODECS[attribute(record)].encode()
    return _number(Verb(verb.letter, way, None, verb.at), attribute)


def _each_header(verb: Verb) -> Part:
    """Return what prints the headers, each as if it were a record with a key and a value."""
    if verb.text is None:
        return lambda record: _headers(record.headers)
    tokens = tokenize(verb.text, verb.at + len("%h{"))
    for token in tokens:
        if isinstance(token, Verb) and token.letter not in _IN_HEADERS:
            raise refuse(token, "a header has only %k %v %K %V")
    inner = _joined([_part(token, Surroundings(), itertools.count(1)) for token in tokens])

    def write(record: Record) -> bytes:
        return b"".join(
            inner(Record(record.topic, record.partition, 0, 0, name.encode(), value, ()))
            for name, value in record.headers
        )

    return write


__all__ = ["FormatError", "Part", "Surroundings", "compile_template"]
