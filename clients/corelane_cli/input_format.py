r"""What `produce --template` reads: the verbs, which are rpk's, filled from the input in turn.

    %t topic   %k key   %v value              text: {hex} {base64} {base64raw} {json} {re[\d+]}
    %p partition   %d timestamp in ms         numbers: {ascii} {big32} {hex8} {bool} ...
    %o offset   %e leader epoch   %x producer id   %y producer epoch     read, and not used
    %T %K %V  how many bytes the topic, key or value after it has; -1 stands for null
    %H  how many headers follow               %V{3}: always three, nothing is read
    %h{%k=%v }  the headers, each of this form

A text without a size ends where the text after its verb begins. The last one may end with the
input. The grammar around the verbs is in layout.py.
"""

import base64
import binascii
import re
from collections.abc import Awaitable, Callable
from typing import Final

from corelane_cli.input_source import InputError, InputSource
from corelane_cli.json_text import compact, read_json
from corelane_cli.layout import FormatError, Literal, Token, Verb, refuse, tokenize
from corelane_cli.number_formats import FIXED

HEADERS_MAX: Final = 100_000
_NUMBER_DIGITS_MAX: Final = 20
_NULL_LARGEST_MIN: Final = 0xFFFF
_SIZES: Final = "TKVH"
_TEXTS: Final = "tkv"
_NUMBERS: Final = "pdoexy"
_VERBS: Final = " ".join(f"%{letter}" for letter in (*_TEXTS, *_SIZES, *_NUMBERS, "h"))
_ASCII: Final = re.compile(rb"-?[0-9]*")
_TRUTH: Final = re.compile(rb"true|false")


class Fields:
    """What was read of one record."""

    __slots__ = ("headers", "numbers", "texts")

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        """By letter: sizes, and the verbs that are numbers."""
        self.texts: dict[str, bytes | None] = {}
        self.headers: list[tuple[str, bytes | None]] = []


_Step = Callable[[InputSource, Fields], Awaitable[None]]


class InputFormat:
    """A compiled format. Raises FormatError for text that is none."""

    def __init__(self, text: str) -> None:
        tokens = tokenize(text)
        if not tokens:
            raise FormatError("the format is empty")
        self._form = _compile(tokens, is_nested=False)
        letters = {token.letter for token in tokens if isinstance(token, Verb)}
        if not letters & {*_TEXTS, "h"}:
            raise FormatError("it reads none of %k, %v, %t and %h")
        self.has_topic = "t" in letters

    async def read(self, source: InputSource) -> Fields | None:
        """Return the next record, or None at the end. Raises InputError."""
        if await source.is_at_end():
            return None
        at = source.position
        fields = Fields()
        await _follow(self._form, source, fields)
        if source.position == at:
            raise InputError(f"byte {at} of the input: the format matches nothing there for ever")
        return fields


_Form = list[tuple[str, _Step]]
"""What is read, with its name for errors, in order."""


async def _follow(form: _Form, source: InputSource, fields: Fields) -> None:
    for name, step in form:
        at = source.position
        try:
            await step(source, fields)
        except InputError as error:
            where = "" if str(error).startswith("byte ") else f"byte {at} of the input, {name}: "
            raise InputError(f"{where}{error}") from error


def _compile(tokens: list[Token], *, is_nested: bool) -> _Form:
    """Return what reads *tokens*. Raises FormatError."""
    form: _Form = []
    seen: set[str] = set()
    skip = False
    for at, token in enumerate(tokens):
        is_last = at + 1 == len(tokens) and not is_nested
        following = tokens[at + 1] if at + 1 < len(tokens) else None
        if isinstance(token, Literal):
            if not skip:
                form.append(("text", _literal(token.data, is_last=is_last and len(tokens) > 1)))
            skip = False
            continue
        _check_order(token, seen, is_nested=is_nested)
        if token.letter in _TEXTS:
            may_miss = not is_nested and at + 2 >= len(tokens)
            step, skip = _text(token, following, seen, may_miss=may_miss)
        elif token.letter == "h":
            step = _headers(token)
        else:
            step = _number(token)
        seen.add(token.letter)
        form.append((token.name, step))
    return form


def _check_order(verb: Verb, seen: set[str], *, is_nested: bool) -> None:
    """Raise FormatError for a verb that cannot stand where it stands."""
    letter = verb.letter
    allowed = "kvKV" if is_nested else _TEXTS + _SIZES + _NUMBERS + "h"
    if letter not in allowed:
        known = (
            "a header has only %k %v %K %V" if is_nested else f"there are {_VERBS} and %% %{{ %}}"
        )
        raise refuse(verb, f"it is not known here; {known}")
    if letter in seen:
        raise refuse(verb, "it stands there twice")
    if letter in _SIZES and letter.lower() in seen:
        raise refuse(verb, f"a size must come before its %{letter.lower()}")
    if letter == "h" and "H" not in seen:
        raise refuse(verb, "%H, how many headers there are, must come before it")


def _literal(data: bytes, *, is_last: bool) -> _Step:
    async def step(source: InputSource, fields: Fields) -> None:
        await source.expect(data, may_miss=is_last)

    return step


def _number(verb: Verb) -> _Step:
    """Return what reads a number and keeps it under the letter."""
    letter, way = verb.letter, verb.modifier or "ascii"
    if verb.text is not None:
        raise refuse(verb, _number_ways())
    if way.isascii() and way.isdecimal():
        constant = int(way)
        if letter not in _SIZES:
            raise refuse(verb, "only sizes can be given in the format")

        async def given(source: InputSource, fields: Fields) -> None:
            fields.numbers[letter] = constant

        return given
    read = _number_reader(way)
    if read is None:
        raise refuse(verb, _number_ways())

    async def step(source: InputSource, fields: Fields) -> None:
        fields.numbers[letter] = await read(source)

    return step


def _number_ways() -> str:
    known = ", ".join(["ascii", *FIXED, "bool"])
    return f"this way to read a number is not known; there are {known}, and digits for a size"


def _number_reader(way: str) -> Callable[[InputSource], Awaitable[int]] | None:
    fixed = FIXED.get(way)
    if fixed is not None:

        async def read_fixed(source: InputSource) -> int:
            data = await source.take(fixed.size_bytes)
            try:
                number = fixed.read(data)
            except ValueError as error:
                raise InputError(str(error)) from error
            # The size of a null is -1. A size of one byte may well be 255.
            return -1 if number == fixed.largest >= _NULL_LARGEST_MIN else number

        return read_fixed
    if way == "ascii":

        async def read_ascii(source: InputSource) -> int:
            data = await source.match(_ASCII)
            if not data.lstrip(b"-") or len(data) > _NUMBER_DIGITS_MAX:
                raise InputError(
                    "there is no number" if len(data) < 2 else "the number is too long"
                )
            return int(data)

        return read_ascii
    if way == "bool":

        async def read_bool(source: InputSource) -> int:
            return int(await source.match(_TRUTH) == b"true")

        return read_bool
    return None


_Decode = Callable[[bytes], bytes]


def _unhex(data: bytes) -> bytes:
    return binascii.unhexlify(data)


def _unbase64(data: bytes) -> bytes:
    return base64.b64decode(data, validate=True)


def _unbase64_raw(data: bytes) -> bytes:
    return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)


_DECODERS: Final[dict[str, _Decode]] = {
    "hex": _unhex,
    "base64": _unbase64,
    "base64raw": _unbase64_raw,
    "json": compact,
}


def _text(
    verb: Verb, following: Token | None, seen: set[str], *, may_miss: bool
) -> tuple[_Step, bool]:
    """Return what reads a text, and whether it has read the literal that follows too.

    *may_miss*: it is the last that is read, so the input may end it.
    """
    letter, size = verb.letter, verb.letter.upper()
    decode = _DECODERS.get(verb.modifier)
    if verb.modifier and decode is None and verb.modifier != "re":
        known = ", ".join([*_DECODERS, "re[...]"])
        raise refuse(verb, f"this way to read text is not known; there are {known}")
    if size in seen:
        if verb.modifier == "re":
            raise refuse(verb, f"it has a pattern and a size (%{size}); keep one of them")
        return _sized(letter, decode), False
    if verb.modifier == "re":
        return _by_pattern(verb), False
    if verb.modifier == "json":

        async def value(source: InputSource, fields: Fields) -> None:
            fields.texts[letter] = await read_json(source)

        return value, False
    if isinstance(following, Literal):
        return _delimited(letter, decode, following.data, may_miss=may_miss), True
    if following is not None or not may_miss:
        raise refuse(
            verb, f"nothing says where it ends; put a text after it, or its size (%{size}) before"
        )

    async def rest(source: InputSource, fields: Fields) -> None:
        fields.texts[letter] = _decoded(await source.rest(), decode)

    return rest, False


def _sized(letter: str, decode: _Decode | None) -> _Step:
    size = letter.upper()

    async def step(source: InputSource, fields: Fields) -> None:
        size_bytes = fields.numbers[size]
        if size_bytes < -1:
            raise InputError(f"{size_bytes} is not a size")
        if size_bytes == -1:
            fields.texts[letter] = None
        else:
            fields.texts[letter] = _decoded(await source.take(size_bytes), decode)

    return step


def _delimited(letter: str, decode: _Decode | None, mark: bytes, *, may_miss: bool) -> _Step:
    async def step(source: InputSource, fields: Fields) -> None:
        fields.texts[letter] = _decoded(await source.until(mark, may_miss=may_miss), decode)

    return step


def _by_pattern(verb: Verb) -> _Step:
    letter = verb.letter
    if verb.text is None:
        raise refuse(verb, "its pattern is missing; write {re[...]}")
    try:
        pattern = re.compile(verb.text.encode())
    except re.error as error:
        raise refuse(verb, f"the pattern is not one: {error}") from error

    async def step(source: InputSource, fields: Fields) -> None:
        fields.texts[letter] = await source.match(pattern)

    return step


def _decoded(data: bytes, decode: _Decode | None) -> bytes:
    if decode is None:
        return data
    try:
        return decode(data)
    except binascii.Error as error:
        raise InputError(f"{data[:40]!r} cannot be decoded: {str(error).lower()}") from error


def _headers(verb: Verb) -> _Step:
    """Return what reads headers, each as if it were a record with a key and a value."""
    if verb.text is None:
        raise refuse(verb, "its form is missing; write %h{%k=%v }")
    form = _compile(tokenize(verb.text, verb.at + len("%h{")), is_nested=True)

    async def step(source: InputSource, fields: Fields) -> None:
        count = fields.numbers["H"]
        if not 0 <= count <= HEADERS_MAX:
            raise InputError(f"{count} is not a number of headers; there can be {HEADERS_MAX}")
        for _ in range(count):
            header = Fields()
            await _follow(form, source, header)
            name = header.texts.get("k") or b""
            try:
                fields.headers.append((name.decode(), header.texts.get("v", b"")))
            except UnicodeDecodeError as error:
                raise InputError(f"the header name {name[:40]!r} is not UTF-8") from error

    return step
