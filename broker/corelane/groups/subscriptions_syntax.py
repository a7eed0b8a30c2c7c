r"""Reads a pattern of topic names, in the syntax of RE2, into a tree.

The alphabet is that of topic names, 65 characters: a set of characters is a number of 65 bits, and
a character outside of it is an empty set, which matches nothing. Names have no line ends, so the
flags `s`, `m` and `U` and lazy repetition change nothing and are read over.

RE2 has no look-around and no back references, and neither has this. Beyond that `\b`, `\B`, `\C`
and classes of Unicode (`\p`) are refused. A pattern that is refused gives a sentence, not an
exception; what is bounded is named in the constants.
"""

import string
from typing import Final

from corelane.model.record import record

PATTERN_CHARACTERS_MAX: Final = 8 * 1024
"""More than the names of thirty topics of the longest name; Kafka's own bound is the request's."""

DEPTH_MAX: Final = 60
"""Groups inside each other: the reader and the compiler recurse, Python's stack does not grow."""

REPEAT_MAX: Final = 1000
"""RE2's own bound of {m,n}."""

ALPHABET: Final = string.ascii_letters + string.digits + "._-"
EVERYTHING: Final = (1 << len(ALPHABET)) - 1
_BIT: Final = {character: 1 << place for place, character in enumerate(ALPHABET)}


@record
class Characters:
    """One character out of a set."""

    mask: int


@record
class Sequence:
    """One thing after the other; of nothing: the empty text."""

    parts: "list[Node]"


@record
class Choice:
    """One of several things."""

    parts: "list[Node]"


@record
class Repeat:
    """The same thing at least *low* times and, unless *high* is None, at most that often."""

    part: "Node"
    low: int
    high: int | None


@record
class Begin:
    """The start of the name."""


@record
class End:
    """The end of the name."""


Node = Characters | Sequence | Choice | Repeat | Begin | End


class SyntaxRefusedError(Exception):
    """Why a pattern is refused; it does not leave `subscriptions_pattern.compile_pattern`."""


def _mask(characters: str) -> int:
    mask = 0
    for character in characters:
        mask |= _BIT.get(character, 0)
    return mask


_DIGITS: Final = _mask(string.digits)
_WORDS: Final = _mask(string.ascii_letters + string.digits + "_")
_SETS: Final = {
    "d": _DIGITS,
    "D": EVERYTHING & ~_DIGITS,
    "w": _WORDS,
    "W": EVERYTHING & ~_WORDS,
    "s": 0,
    "S": EVERYTHING,
}
_POSIX: Final = {
    "alnum": _mask(string.ascii_letters + string.digits),
    "alpha": _mask(string.ascii_letters),
    "ascii": EVERYTHING,
    "blank": 0,
    "cntrl": 0,
    "digit": _DIGITS,
    "graph": EVERYTHING,
    "lower": _mask(string.ascii_lowercase),
    "print": EVERYTHING,
    "punct": _mask("._-"),
    "space": 0,
    "upper": _mask(string.ascii_uppercase),
    "word": _WORDS,
    "xdigit": _mask(string.hexdigits),
}
_CONTROLS: Final = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_HEX_DIGITS_MAX: Final = 6
_NAME_OF_GROUP: Final = frozenset(string.ascii_letters + string.digits + "_")


def parse(pattern: str) -> Node:
    """Return the tree of *pattern*; SyntaxRefusedError says why there is none."""
    if len(pattern) > PATTERN_CHARACTERS_MAX:
        raise SyntaxRefusedError(f"it has more than {PATTERN_CHARACTERS_MAX} characters")
    reader = _Reader(pattern)
    tree = reader.choice()
    if reader.at < len(pattern):
        raise SyntaxRefusedError("unexpected )")
    return tree


class _Reader:
    __slots__ = ("_depth", "_fold", "_names", "_text", "at")

    def __init__(self, text: str) -> None:
        self._text = text
        self._depth = 0
        self._fold = False
        self._names: set[str] = set()
        self.at = 0

    def choice(self) -> Node:
        """Read up to a `)` that is not ours, or the end."""
        # a flag such as (?i) holds to the end of the group it is in
        fold = self._fold
        parts = [self._sequence()]
        while self._next_is("|"):
            parts.append(self._sequence())
        self._fold = fold
        return parts[0] if len(parts) == 1 else Choice(parts)

    def _next_is(self, text: str) -> bool:
        if not self._text.startswith(text, self.at):
            return False
        self.at += len(text)
        return True

    def _take(self, what: str) -> str:
        if self.at == len(self._text):
            raise SyntaxRefusedError(f"it ends inside {what}")
        self.at += 1
        return self._text[self.at - 1]

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while self.at < len(self._text) and self._text[self.at] not in "|)":
            if self._next_is("\\Q"):
                parts += self._quoted()
                continue
            part = self._atom()
            if part is not None:
                parts.append(self._repeated(part))
        return parts[0] if len(parts) == 1 else Sequence(parts)

    def _quoted(self) -> list[Node]:
        r"""Read what follows a \Q, up to \E or the end; a repetition is of the last character."""
        end = self._text.find("\\E", self.at)
        text = self._text[self.at : end if end >= 0 else None]
        self.at += len(text) + (2 if end >= 0 else 0)
        parts: list[Node] = [self._literal(character) for character in text]
        if parts:
            parts[-1] = self._repeated(parts[-1])
        return parts

    def _atom(self) -> Node | None:
        """Read one thing; None for a flag, which is none."""
        character = self._take("the pattern")
        match character:
            case "(":
                return self._group()
            case "[":
                return Characters(self._class())
            case ".":
                return Characters(EVERYTHING)
            case "^":
                return Begin()
            case "$":
                return End()
            case "\\":
                return self._escape()
            case "*" | "+" | "?":
                raise SyntaxRefusedError(f"nothing is before {character} that it could repeat")
            case _:
                return self._literal(character)

    def _literal(self, character: str) -> Characters:
        return Characters(self._folded(_BIT.get(character, 0)))

    def _folded(self, mask: int) -> int:
        if not self._fold:
            return mask
        for lower, upper in zip(string.ascii_lowercase, string.ascii_uppercase, strict=True):
            both = _BIT[lower] | _BIT[upper]
            if mask & both:
                mask |= both
        return mask

    def _group(self) -> Node | None:
        fold = self._fold
        if self._next_is("?"):
            if self._next_is("P<") or self._next_is("<"):
                self._group_name()
            elif not self._flags():
                return None
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise SyntaxRefusedError(f"more than {DEPTH_MAX} groups are inside each other")
        tree = self.choice()
        if not self._next_is(")"):
            raise SyntaxRefusedError("a ) is missing")
        self._depth -= 1
        self._fold = fold
        return tree

    def _group_name(self) -> None:
        end = self._text.find(">", self.at)
        name = self._text[self.at : max(end, self.at)]
        if not name or not set(name) <= _NAME_OF_GROUP:
            raise SyntaxRefusedError("a name of a group is malformed, or this is a look-behind")
        if name in self._names:
            raise SyntaxRefusedError(f"two groups are named {name}")
        self._names.add(name)
        self.at = end + 1

    def _flags(self) -> bool:
        """Read the flags after `(?` and tell whether a group follows, as in `(?i:`."""
        value = True
        while True:
            character = self._take("a group's flags")
            match character:
                case ":":
                    return True
                case ")":
                    return False
                case "-" if value:
                    value = False
                case "i":
                    self._fold = value
                case "m" | "s" | "U":
                    pass
                case _:
                    raise SyntaxRefusedError(f"(?{character} is not supported")

    def _escape(self) -> Node:
        character = self._take("an escape")
        match character:
            case "A":
                return Begin()
            case "z":
                return End()
            case _ if character in _SETS:
                return Characters(_SETS[character])
            case _:
                return self._literal(self._escaped(character))

    def _escaped(self, character: str) -> str:
        """Return the one character that an escape means."""
        if character in _CONTROLS:
            return _CONTROLS[character]
        if character == "x":
            return self._hex()
        if character.isascii() and not character.isalnum():
            return character
        raise SyntaxRefusedError(f"\\{character} is not supported")

    def _hex(self) -> str:
        if self._next_is("{"):
            end = self._text.find("}", self.at)
            digits = self._text[self.at : max(end, self.at)]
            self.at = end + 1
        else:
            digits = self._text[self.at : self.at + 2]
            self.at += 2
            if len(digits) != 2:
                raise SyntaxRefusedError("it ends inside \\x")
        good = digits and len(digits) <= _HEX_DIGITS_MAX and set(digits) <= set(string.hexdigits)
        if not good or int(digits, 16) > 0x10FFFF:
            raise SyntaxRefusedError("\\x is not followed by the number of a character")
        return chr(int(digits, 16))

    def _class(self) -> int:
        """Read a class after its `[`."""
        negated = self._next_is("^")
        mask = 0
        first = True
        while first or not self._next_is("]"):
            first = False
            if self._next_is("[:"):
                mask |= self._posix()
                continue
            low = self._class_character()
            if isinstance(low, int):
                mask |= low
                continue
            if self._text.startswith("-", self.at) and not self._text.startswith("-]", self.at):
                self.at += 1
                high = self._class_character()
                if isinstance(high, int) or high < low:
                    raise SyntaxRefusedError("a range of characters has no good end")
                mask |= _range(low, high)
            else:
                mask |= _BIT.get(low, 0)
        mask = self._folded(mask)
        return EVERYTHING & ~mask if negated else mask

    def _class_character(self) -> str | int:
        """Return a character, or a set as number."""
        character = self._take("a class of characters")
        if character != "\\":
            return character
        character = self._take("an escape")
        return _SETS[character] if character in _SETS else self._escaped(character)

    def _posix(self) -> int:
        end = self._text.find(":]", self.at)
        name = self._text[self.at : max(end, self.at)]
        negated = name.startswith("^")
        mask = _POSIX.get(name.removeprefix("^"))
        if mask is None:
            raise SyntaxRefusedError(f"there is no class [:{name[:20]}:]")
        self.at = end + 2
        return EVERYTHING & ~mask if negated else mask

    def _repeated(self, part: Node) -> Node:
        bounds = self._bounds()
        if bounds is None:
            return part
        self._next_is("?")  # lazy: which match is found makes no difference here
        if self._bounds() is not None:
            raise SyntaxRefusedError("a repetition is repeated")
        return Repeat(part, *bounds)

    def _bounds(self) -> tuple[int, int | None] | None:
        if self._next_is("*"):
            return 0, None
        if self._next_is("+"):
            return 1, None
        if self._next_is("?"):
            return 0, 1
        if self._text.startswith("{", self.at):
            return self._braces()
        return None

    def _braces(self) -> tuple[int, int | None] | None:
        """Read {m}, {m,} or {m,n}; anything else is a literal brace, as RE2 has it."""
        end = self._text.find("}", self.at)
        low, comma, high = self._text[self.at + 1 : max(end, self.at + 1)].partition(",")
        if not _is_number(low) or (high and not _is_number(high)):
            return None
        self.at = end + 1
        least = int(low)
        most = least if not comma else int(high) if high else None
        if least > REPEAT_MAX or (most is not None and not least <= most <= REPEAT_MAX):
            raise SyntaxRefusedError(
                f"a repetition is not within 0 and {REPEAT_MAX}, or goes backwards"
            )
        return least, most


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(REPEAT_MAX))


def _range(low: str, high: str) -> int:
    mask = 0
    for character, bit in _BIT.items():
        if low <= character <= high:
            mask |= bit
    return mask
