"""Tells which topic names a client's pattern matches, in time linear in the name.

Kafka hands a client's pattern to RE2/J (KIP-848, `SubscribedTopicRegex`) and takes the topics whose
whole name matches. Python's `re` goes back and tries again, so that a pattern like `(a+)+b` can
hold a core for hours. Here a pattern becomes a deterministic automaton before it is believed:
compiling has a budget of work and of states, and what exceeds it is refused. After that a name
costs one look at a table per character, whatever the pattern was.

The construction is Thompson's, then that of subsets; over 65 characters it needs no more.
"""

from typing import Final, assert_never

from corelane.groups.subscriptions_syntax import (
    ALPHABET,
    EVERYTHING,
    Begin,
    Characters,
    Choice,
    End,
    Node,
    Repeat,
    Sequence,
    SyntaxRefusedError,
    parse,
)

WORK_MAX: Final = 150_000
"""Steps of compiling, a third of a microsecond each: a hostile pattern costs 50 ms and is refused.
Sixty whole names joined by `|` fit in."""

STATES_MAX: Final = 3000
"""Of the automaton; each has a row of at most 65 numbers."""

_DEAD: Final = -1


class TopicPattern:
    """A compiled pattern. Immutable."""

    __slots__ = ("_accepting", "_classes", "_rows")

    def __init__(
        self, classes: dict[str, int], rows: list[list[int]], accepting: list[bool]
    ) -> None:
        assert len(rows) == len(accepting)
        self._classes = classes
        self._rows = rows
        self._accepting = accepting

    def matches(self, name: str) -> bool:
        """Whether the whole of *name*, which is not empty, matches."""
        assert name
        rows = self._rows
        classes = self._classes
        state = 0
        for character in name:
            kind = classes.get(character)
            if kind is None:
                return False
            state = rows[state][kind]
            if state == _DEAD:
                return False
        return self._accepting[state]


def compile_pattern(pattern: str) -> TopicPattern | str:
    """Return the compiled pattern, or the sentence why it is refused."""
    try:
        return _Compiler(parse(pattern)).compile()
    except SyntaxRefusedError as fault:
        return str(fault)


class _Compiler:
    """Positions of the first automaton are numbers; each has exactly one of three meanings."""

    __slots__ = ("_ends", "_final", "_kinds", "_masks", "_nexts", "_splits", "_takes", "_work")

    def __init__(self, tree: Node) -> None:
        self._work = 0
        self._masks: dict[int, int] = {}
        """Positions that take one character of a set and go on to the next position."""
        self._nexts: dict[int, int] = {}
        self._splits: dict[int, tuple[int, ...]] = {}
        """Positions that take nothing and go on to each of these."""
        self._ends: dict[int, tuple[str, int]] = {}
        """Positions that go on only at the begin or at the end of the name."""
        self._final = self._position()
        start = self._add(tree, self._final)
        self._splits[-1] = (start,)
        self._kinds = self._classes_of_characters()
        self._takes = {
            mask: [number for number, kind in enumerate(self._kinds) if kind & mask]
            for mask in set(self._masks.values())
        }

    def _spend(self, steps: int) -> None:
        self._work += steps
        if self._work > WORK_MAX:
            raise SyntaxRefusedError("it would take too much work")

    def _position(self) -> int:
        self._spend(1)
        return self._work

    def _add(self, node: Node, then: int) -> int:
        """Add *node* before *then* and return the position where it begins."""
        self._spend(1)
        match node:
            case Characters():
                here = self._position()
                self._masks[here] = node.mask
                self._nexts[here] = then
                return here
            case Sequence():
                for part in reversed(node.parts):
                    then = self._add(part, then)
                return then
            case Choice():
                here = self._position()
                self._splits[here] = tuple(self._add(part, then) for part in node.parts)
                return here
            case Repeat():
                return self._add_repeat(node, then)
            case Begin():
                here = self._position()
                self._ends[here] = ("begin", then)
                return here
            case End():
                here = self._position()
                self._ends[here] = ("end", then)
                return here
            case _:
                assert_never(node)

    def _add_repeat(self, node: Repeat, then: int) -> int:
        if node.high is None:
            loop = self._position()
            self._splits[loop] = (self._add(node.part, loop), then)
            begin = loop
        else:
            begin = then
            for _ in range(node.high - node.low):
                here = self._position()
                self._splits[here] = (self._add(node.part, begin), then)
                begin = here
        for _ in range(node.low):
            begin = self._add(node.part, begin)
        return begin

    def _classes_of_characters(self) -> list[int]:
        """Return the coarsest sets of characters that no set of the pattern tells apart."""
        kinds = [EVERYTHING]
        for mask in dict.fromkeys(self._masks.values()):
            self._spend(len(kinds))
            kinds = [part for kind in kinds for part in (kind & mask, kind & ~mask) if part]
        return kinds

    def _closure(self, positions: frozenset[int], at: frozenset[str]) -> set[int]:
        """Return what is reached without a character, where the asked places are those in *at*."""
        found: set[int] = set()
        waiting = list(positions)
        while waiting:
            here = waiting.pop()
            if here in found:
                continue
            self._spend(1)
            found.add(here)
            if here in self._splits:
                waiting += self._splits[here]
            elif here in self._ends and self._ends[here][0] in at:
                waiting.append(self._ends[here][1])
        return found

    def compile(self) -> TopicPattern:
        """Return the deterministic automaton; SyntaxRefusedError if it would be too large."""
        start = frozenset({-1})
        numbers = {start: 0}
        order = [start]
        rows: list[list[int]] = []
        accepting: list[bool] = []
        while len(rows) < len(order):
            positions = order[len(rows)]
            reached = self._closure(positions, frozenset({"begin"} if not rows else ()))
            ended = self._closure(positions, frozenset({"end"}))
            accepting.append(self._final in ended)
            row = [_DEAD] * len(self._kinds)
            for kind, following in self._follow(reached).items():
                target = frozenset(following)
                number = numbers.get(target)
                if number is None:
                    number = numbers[target] = len(order)
                    order.append(target)
                    if len(order) > STATES_MAX:
                        raise SyntaxRefusedError("it would take too many states")
                row[kind] = number
            rows.append(row)
        classes = {
            character: next(k for k, kind in enumerate(self._kinds) if kind >> place & 1)
            for place, character in enumerate(ALPHABET)
        }
        return TopicPattern(classes, rows, accepting)

    def _follow(self, reached: set[int]) -> dict[int, set[int]]:
        following: dict[int, set[int]] = {}
        for here in sorted(reached & self._masks.keys()):
            takes = self._takes[self._masks[here]]
            self._spend(len(takes))
            for kind in takes:
                following.setdefault(kind, set()).add(self._nexts[here])
        return following
