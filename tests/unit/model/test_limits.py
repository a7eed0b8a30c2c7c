"""The bounds: numbers of the same promise agree with Kafka's and with each other."""

from corelane.model import limits


def test_every_bound_says_its_unit_or_is_a_count() -> None:
    endings = (
        "_BYTES", "_BYTES_MAX", "_BYTES_MIN", "_BYTES_DEFAULT", "_MAX", "_MIN", "_MS", "_COUNT",
        "_BATCHES", "KIB", "MIB", "GIB", "_PATTERN",
    )  # fmt: skip
    names = [name for name in vars(limits) if name.isupper()]
    assert len(names) > 40
    assert all(name.endswith(endings) for name in names)


def test_topic_names_match_as_a_whole() -> None:
    for name in ("a", "A-1_b.c", "." * 3):
        assert limits.TOPIC_NAME_PATTERN.match(name)
    for name in ("", "a b", "a\n", "ä", "a/b"):
        assert not limits.TOPIC_NAME_PATTERN.match(name)
