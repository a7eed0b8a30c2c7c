"""How brokers are named."""

import pytest

from corelane_client.address import Address, AddressError, parse_bootstrap


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost:9092", [Address("localhost", 9092)]),
        ("a:1, b:2,", [Address("a", 1), Address("b", 2)]),
        ("host", [Address("host", 9092)]),
        ("[::1]:9092", [Address("::1", 9092)]),
        ("[::1]", [Address("::1", 9092)]),
    ],
)
def test_an_address_is_understood(text: str, expected: list[Address]) -> None:
    assert parse_bootstrap(text) == expected


@pytest.mark.parametrize("text", ["", ",", ":9092", "a:x", "a:0", "a:65536", "::1", "[::1", "[a]b"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_bootstrap(text)


def test_an_address_prints_as_it_is_written() -> None:
    assert [str(each) for each in parse_bootstrap("a:1,[::1]:2")] == ["a:1", "[::1]:2"]
