r"""Cuts the text of a format into literal bytes and verbs; what the verbs mean is not known here.

The grammar is rpk's, the same for printing and reading:

    \t \n \r \\ \xNN      special characters, and \0
    %% %{ %}              a percent sign and braces
    %v  %v{hex}           a verb, and one with a modifier
    %d{strftime[%F]}      a modifier with a text of its own, between [ ], { }, ( ), or any character
    %d{go##15:04##}       as often as needed, so that the text may hold it
    %h{%k=%v }            a verb with a whole format inside
"""

import re
from typing import Final

from corelane.model.record import record

NESTED: Final = "h"
"""The verb whose braces hold a format."""
_WRAPPED: Final = ("unpack", "strftime", "go", "re")
"""The modifiers that are followed by a text of their own."""
_CLOSING: Final = {"[": "]", "{": "}", "(": ")", "<": ">"}
_ESCAPES: Final = {"n": b"\n", "t": b"\t", "r": b"\r", "0": b"\x00", "\\": b"\\"}
_HEX: Final = re.compile(r"[0-9a-fA-F]{2}")


class FormatError(ValueError):
    """The text is not in the grammar; the message says which part, and where it is."""


@record
class Literal:
    """Bytes that stand for themselves."""

    data: bytes


@record
class Verb:
    """A verb: `%d{strftime[%F]}` has the letter d, the modifier strftime and the text %F."""

    letter: str
    modifier: str
    """What the braces hold before a text of its own; empty without braces."""
    text: str | None
    """The modifier's own text, or the format inside a nested verb."""
    at: int
    """Where it stands: 1 is the first character of the whole format."""

    @property
    def name(self) -> str:
        """How errors call it."""
        inside = self.modifier or ("..." if self.text is not None else "")
        return f"%{self.letter}{{{inside}}}" if inside else f"%{self.letter}"


Token = Literal | Verb


def tokenize(text: str, first_at: int = 1) -> list[Token]:
    """Return the parts of *text*, literals joined. Raises FormatError.

    *first_at* is the place of its first character, where it is a part of a larger format.
    """
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        token, end = _token(text, at, first_at)
        if isinstance(token, Literal) and tokens and isinstance(tokens[-1], Literal):
            tokens[-1] = Literal(tokens[-1].data + token.data)
        else:
            tokens.append(token)
        at = end
    return tokens


def refuse(verb: Verb, why: str) -> FormatError:
    """Return the error for *verb*."""
    return FormatError(f"{verb.name} at character {verb.at}: {why}")


def _token(text: str, at: int, first_at: int) -> tuple[Token, int]:
    """Return the part that begins at *at*, and where it ends."""
    if text[at] == "\\":
        return _escape(text, at, first_at)
    if text[at] != "%":
        return Literal(text[at].encode()), at + 1
    if at + 1 == len(text):
        raise FormatError(f"the % at character {first_at + at} says nothing; a percent sign is %%")
    letter = text[at + 1]
    if letter in "%{}":
        return Literal(letter.encode()), at + 2
    if text[at + 2 : at + 3] != "{":
        return Verb(letter, "", None, first_at + at), at + 2
    return _braced(text, at, first_at)


def _escape(text: str, at: int, first_at: int) -> tuple[Token, int]:
    """Return what a backslash stands for."""
    found = text[at + 1 : at + 2]
    if found in _ESCAPES:
        return Literal(_ESCAPES[found]), at + 2
    code = _HEX.match(text, at + 2) if found == "x" else None
    if code is None:
        raise FormatError(
            f"\\{found} at character {first_at + at} is not known;"
            " there are \\n \\t \\r \\0 \\xNN and \\\\"
        )
    return Literal(bytes.fromhex(code[0])), at + 4


def _braced(text: str, at: int, first_at: int) -> tuple[Token, int]:
    """Return the verb at *at* whose braces open."""
    letter, start = text[at + 1], at + 3
    verb = Verb(letter, "", None, first_at + at)
    if letter == NESTED:
        end = _nested_end(text, start)
        if end < 0:
            raise refuse(verb, "its { is never closed")
        return Verb(letter, "", text[start:end], first_at + at), end + 1
    for word in _WRAPPED:
        if text.startswith(word, start) and not text.startswith("}", start + len(word)):
            return _wrapped(text, start + len(word), Verb(letter, word, None, first_at + at))
    end = text.find("}", start)
    if end < 0:
        raise refuse(verb, "its { is never closed")
    modifier = text[start:end]
    if not modifier:
        raise refuse(verb, "its braces are empty")
    return Verb(letter, modifier, None, first_at + at), end + 1


def _nested_end(text: str, start: int) -> int:
    """Return where the brace that opened before *start* closes, or -1; %{ and %} do not count."""
    depth = 1
    at = start
    while at < len(text):
        if text[at] == "%" and text[at + 1 : at + 2] in {"%", "{", "}"}:
            at += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return at
        at += 1
    return -1


def _wrapped(text: str, start: int, verb: Verb) -> tuple[Token, int]:
    """Return *verb* with its own text, which begins at *start* between repeated characters."""
    opening = text[start : start + 1]
    if not opening:
        raise refuse(verb, "its { is never closed")
    count = len(text) - start - len(text[start:].lstrip(opening))
    closing = _CLOSING.get(opening, opening) * count
    inner = start + count
    end = text.find(closing, inner)
    if end < 0:
        raise refuse(verb, f"the text after it begins with {opening * count} and lacks {closing}")
    if not text.startswith("}", end + count):
        raise refuse(verb, f"a }} must follow {closing}")
    return Verb(verb.letter, verb.modifier, text[inner:end], verb.at), end + count + 1
