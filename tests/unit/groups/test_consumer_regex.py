"""Patterns of topic names: the same as `re` where both know a pattern, and never a long time."""

import random
import re
import time

import pytest

from corelane.groups import subscriptions_pattern, subscriptions_syntax
from corelane.groups.subscriptions_pattern import TopicPattern, compile_pattern

ATOMS = [
    "a",
    "b",
    "1",
    "-",
    "_",
    ".",
    "\\.",
    "[ab]",
    "[^a]",
    "[a-c1]",
    "[-a]",
    "[]a]",
    "[\\w-]",
    "\\d",
    "\\D",
    "\\w",
    "\\W",
    "\\S",
    "A",
    "\\x61",
    "é",
]
REPEATS = ["*", "+", "?", "{2}", "{1,3}", "{0,2}", "{2,}", "{0}", "*?", "+?", "??", "{1,2}?"]


def random_pattern(dice: random.Random, depth: int) -> str:
    """Return a pattern that Python's `re` and RE2 take alike."""
    kind = dice.random() if depth else 0
    if kind < 0.35:
        return dice.choice(ATOMS)

    def part() -> str:
        return random_pattern(dice, depth - 1)

    if kind < 0.6:
        return part() + part()
    if kind < 0.72:
        return f"({part()}|{part()})"
    if kind < 0.75:
        return f"(?:{part()}||{part()})"
    if kind < 0.88:
        return f"(?:{part()}){dice.choice(REPEATS)}"
    if kind < 0.92:
        return f"(?i:{part()})"
    return dice.choice([f"^{part()}", f"{part()}$", f"(\\A{part()})", f"(?:^|{part()}){part()}"])


@pytest.mark.parametrize("seed", range(40))
def test_random_patterns_match_what_re_matches(seed: int) -> None:
    dice = random.Random(seed)
    matched = 0
    for _ in range(60):
        text = random_pattern(dice, 4)
        pattern = compile_pattern(text)
        assert isinstance(pattern, TopicPattern), f"seed {seed}: {text!r} is refused: {pattern}"
        reference = re.compile(text)
        for _ in range(20):
            name = "".join(dice.choices("abcA1.-_", k=dice.randint(1, 7)))
            wanted = reference.fullmatch(name) is not None
            matched += wanted
            assert pattern.matches(name) == wanted, f"seed {seed}: {text!r} on {name!r}"
    assert matched > 0


def matches(pattern: str, name: str) -> bool:
    compiled = compile_pattern(pattern)
    assert isinstance(compiled, TopicPattern), compiled
    return compiled.matches(name)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("orders-.*", "orders-eu", "my-orders-eu"),
        ("^orders$", "orders", "orders2"),
        ("", "", "a"),
        ("(?i)ORDERS", "orders", "order"),
        ("(?i:A)b", "ab", "aB"),
        ("((?i)a|b)c", "Bc", "BC"),
        ("(?-i)a(?i)b", "aB", "AB"),
        ("(?ims-U:a)", "A", "b"),
        ("(?P<team>a)(?<rest>b)", "ab", "a"),
        ("[[:alpha:]]+[[:digit:]]", "ab1", "1a"),
        ("[[:^alpha:]]", "1", "a"),
        ("[^[:alnum:]_-]", ".", "-"),
        ("(?i)[a-c]", "C", "d"),
        ("\\Qa.b\\E+", "a.bb", "acb"),
        ("\\Qa.b", "a.b", "a.bb"),
        ("a\\Q\\Eb", "ab", "a"),
        ("\\x{61}\\x62", "ab", "a"),
        ("a{,2}|b", "b", "aa"),  # RE2: a literal brace, which no name has
        ("a{x}|b", "b", "a"),
        ("[a-]", "-", "b"),
        ("[\\d.]+", "1.2", "a"),
        ("a|\\n|\\t", "a", "n"),
        ("(a|)b", "b", "a"),
        ("x*", "xxx", "y"),
        ("a$b|c", "c", "ab"),
        ("a^b|c", "c", "ab"),
        ("(^a|b$)+", "ab", "ba"),
        ("a\\z", "a", "b"),
        ("ü|a", "a", "u"),
    ],
)
def test_the_syntax_of_re2(pattern: str, yes: str, no: str) -> None:
    if yes:
        assert matches(pattern, yes)
    assert not matches(pattern, no)


@pytest.mark.parametrize(
    "pattern",
    [
        "(", ")", "a)", "(a", "[", "[a", "[]", "[^]", "*", "+a", "a|*", "(*)", "a**", "a*+",
        "a{2}{3}",
        "a{1001}", "a{3,2}", "a{1,1001}", "(?=a)", "(?!a)", "(?<=a)", "(?<!a)", "(?#c)", "(?>a)",
        "(?", "(?i", "(?i--s)", "(?P<n>a)(?P<n>b)", "(?P<>a)", "(?P<a", "(?P=n)", "\\", "\\1",
        "\\b", "\\B", "\\C", "\\pL", "\\k<n>", "\\Z", "\\x", "\\x1", "\\x{}", "\\x{110000}",
        "\\xgg", "[b-a]", "[a-\\d]", "[[:nope:]]", "[[:alpha:", "[\\", "\\é", "a" * 9000,
        "(" * 61 + ")" * 61,
    ],
)  # fmt: skip
def test_what_re2_or_a_bound_refuses_is_refused_with_a_sentence(pattern: str) -> None:
    refused = compile_pattern(pattern)
    assert isinstance(refused, str)
    assert refused


def test_a_name_with_other_characters_matches_nothing() -> None:
    assert not matches(".*", "a b")
    assert not matches(".*", "ä")


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+b",
        "(a|aa)*$",
        "(.*a){20}b",
        "(x+x+)+y",
        "(.*)*(.*)*(.*)*x",
        "((a*)*)*b",
        "(a|b)*a(a|b){20}",
        "((((a{1000}){1000}){1000}){1000})",
        "(((){1000}){1000}){1000}",
        "((((.?){9}){9}){9}){9}",
        "(" * 60 + "a" + "*)" * 60 + "b",
        "|".join(f"(.*{n}.*)" for n in range(400)),
    ],
)
def test_hostile_patterns_are_refused_or_fast(pattern: str) -> None:
    began = time.monotonic()
    compiled = compile_pattern(pattern)
    if isinstance(compiled, TopicPattern):
        for _ in range(100):
            compiled.matches("a" * 249)
    # 60 ms on the machine this was written on; `re` takes longer than anybody waits.
    assert time.monotonic() - began < 2


def test_states_and_work_are_bounded_each() -> None:
    refused = "it would take too many states"
    assert compile_pattern("(a|b)*a(a|b){13}") == refused
    assert compile_pattern("((((a{1000}){1000}){1000}){1000})") == "it would take too much work"


def test_a_compiled_pattern_is_bounded() -> None:
    compiled = compile_pattern("|".join(f"team-{n}.events.v{n % 7}.retry" for n in range(60)))
    assert isinstance(compiled, TopicPattern), "sixty plain names must fit"
    assert len(compiled._rows) <= subscriptions_pattern.STATES_MAX
    assert compiled.matches("team-59.events.v3.retry")
    assert not compiled.matches("team-59.events.v4.retry")


@pytest.mark.parametrize("seed", range(20))
def test_garbage_never_raises(seed: int) -> None:
    dice = random.Random(seed)
    signs = "ab.*+?|()[]{}^$\\-,:<>=!PiQEdwxz019é\n"
    for _ in range(400):
        text = "".join(dice.choices(signs, k=dice.randint(0, 14)))
        compiled = compile_pattern(text)
        if isinstance(compiled, TopicPattern):
            compiled.matches("abc.def-0")


def test_the_alphabet_is_that_of_topic_names() -> None:
    alphabet = subscriptions_syntax.ALPHABET
    assert len(set(alphabet)) == 65
    assert re.fullmatch(r"[a-zA-Z0-9._-]+", alphabet)
