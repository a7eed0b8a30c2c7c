r"""The grammar of `consume --template`: how one record is printed.

    %t topic  %p partition  %o offset  %d timestamp (ms)  %k key  %v value  %h headers
    %K %V  the bytes of key and value      %H  the number of headers      %%  a percent sign
    %k{hex} %k{base64} %v{hex} %v{base64}  the same bytes, written so that they are readable
    \n \t \r \0 \\ \xHH                    special characters

A null key or value prints nothing; headers print as name=value, separated by commas.
"""

import base64
import re
from collections.abc import Callable
from typing import Final

from corelane_client.records import Headers, Record

Part = Callable[[Record], bytes]


class TemplateError(ValueError):
    """The text is not in the grammar; the message says which part."""


def _size(data: bytes | None) -> bytes:
    return b"%d" % (-1 if data is None else len(data))


def _headers(headers: Headers) -> bytes:
    return b",".join(name.encode() + b"=" + (value or b"") for name, value in headers)


_VERBS: Final[dict[str, Part]] = {
    "t": lambda record: record.topic.encode(),
    "p": lambda record: b"%d" % record.partition,
    "o": lambda record: b"%d" % record.offset,
    "d": lambda record: b"%d" % record.timestamp_ms,
    "k": lambda record: record.key or b"",
    "v": lambda record: record.value or b"",
    "h": lambda record: _headers(record.headers),
    "K": lambda record: _size(record.key),
    "V": lambda record: _size(record.value),
    "H": lambda record: b"%d" % len(record.headers),
}
_WAYS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "hex": lambda data: data.hex().encode(),
    "base64": base64.b64encode,
}
_ESCAPES: Final = {"n": b"\n", "t": b"\t", "r": b"\r", "0": b"\x00", "\\": b"\\"}
_TOKEN: Final = re.compile(
    r"(?P<text>[^%\\]+)"
    r"|%(?P<verb>.)(?:\{(?P<way>[^}]*)\})?"
    r"|\\x(?P<hex>[0-9a-fA-F]{2})"
    r"|\\(?P<escape>.)",
    re.DOTALL,
)


def compile_template(text: str) -> Part:
    """Return the function that prints a record as *text* says. Raises TemplateError."""
    parts: list[Part] = []
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise TemplateError(f"{text[at:]!r} at the end of the template says nothing")
        parts.append(_part(token))
        at = token.end()
    return lambda record: b"".join([part(record) for part in parts])


def _part(token: re.Match[str]) -> Part:
    """Return what one token prints."""
    if token["text"]:
        return _constant(token["text"].encode())
    if token["hex"]:
        return _constant(bytes.fromhex(token["hex"]))
    if token["escape"]:
        if token["escape"] not in _ESCAPES:
            raise TemplateError(f"\\{token['escape']} is not known; a backslash is \\\\")
        return _constant(_ESCAPES[token["escape"]])
    verb, way = token["verb"], token["way"]
    if verb == "%" and way is None:
        return _constant(b"%")
    if verb not in _VERBS:
        raise TemplateError(f"%{verb} is not known; there are %{' %'.join(_VERBS)} and %%")
    if way is None:
        return _VERBS[verb]
    if verb not in "kv" or way not in _WAYS:
        raise TemplateError(f"%{verb}{{{way}}} is not known; %k and %v take {{hex}} or {{base64}}")
    return _written(_VERBS[verb], _WAYS[way])


def _constant(data: bytes) -> Part:
    return lambda _: data


def _written(part: Part, way: Callable[[bytes], bytes]) -> Part:
    return lambda record: way(part(record))
