"""Listeners in Kafka's words: what they mean, and what is said about everything wrong in them."""

import pytest

from corelane.model.config import ConfigError, check_ports, parse
from corelane.model.config_listeners import Listener

EVERY = "0.0.0.0"  # noqa: S104 (compared, not bound)
TWO = 'listeners = "INSIDE://127.0.0.1:9092,OUTSIDE://0.0.0.0:9093"\n'
TOLD = 'advertised.listeners = "OUTSIDE://broker.example:9093"\n'


def faults(text: str) -> dict[str, str]:
    """Return what is wrong with *text*, by key."""
    with pytest.raises(ConfigError) as caught:
        parse(text)
    found = {fault.key: fault.sentence for fault in caught.value.faults}
    assert len(found) == len(caught.value.faults), "one fault a key is enough"
    return found


def test_nothing_said_is_one_local_listener() -> None:
    (only,) = parse("").listeners
    assert only == Listener("PLAINTEXT", "127.0.0.1", 9092, 19092, "127.0.0.1", 0, 0)


def test_one_listener_in_short() -> None:
    (only,) = parse(
        """
        corelane.bind.host = "0.0.0.0"
        corelane.port = 7000
        corelane.core.port.base = 7100
        corelane.advertised.host = "broker.example"
        """
    ).listeners
    assert only == Listener("PLAINTEXT", EVERY, 7000, 7100, "broker.example", 0, 0)


def test_the_short_form_may_be_advertised_elsewhere_as_a_container_is() -> None:
    (only,) = parse(
        """
        corelane.advertise = "node"
        corelane.bind.host = "0.0.0.0"
        advertised.listeners = "PLAINTEXT://docker.example:29092"
        """
    ).listeners
    assert only == Listener("PLAINTEXT", EVERY, 9092, 19092, "docker.example", 29092, 0)


def test_two_listeners_as_kafka_writes_them() -> None:
    assert parse(TWO + TOLD).listeners == [
        Listener("INSIDE", "127.0.0.1", 9092, 19092, "127.0.0.1", 0, 0),
        Listener("OUTSIDE", EVERY, 9093, 20093, "broker.example", 9093, 0),
    ]


def test_names_are_upper_case_and_spaces_do_not_matter() -> None:
    first, second = parse('listeners = " inside://[::1]:9092 , out.side-2://h_1:0"').listeners
    assert (first.name, first.bind_host, second.name) == ("INSIDE", "::1", "OUT.SIDE-2")
    assert (second.port, second.core_port_base) == (0, 0), "any free ones"


def test_no_host_is_every_address() -> None:
    told = 'advertised.listeners = "P://broker.example:9092"'
    assert parse(f'listeners = "P://:9092"\n{told}').listeners[0].bind_host == EVERY


def test_core_ports_can_be_said_for_each_listener() -> None:
    first, second = parse(
        TWO
        + TOLD
        + """
        corelane.core.port.bases = "OUTSIDE:9500"
        corelane.advertised.core.port.bases = "OUTSIDE:31000,inside:30000"
        """
    ).listeners
    assert (first.core_port_base, first.advertised_core_port_base) == (19092, 30000)
    assert (second.core_port_base, second.advertised_core_port_base) == (9500, 31000)


def test_ports_that_a_router_changes_are_said_for_the_cores_too() -> None:
    told = 'advertised.listeners = "OUTSIDE://broker.example:31000"\n'
    said = faults(TWO + told)["advertised.listeners"]
    assert 'corelane.advertised.core.port.bases = "OUTSIDE:PORT"' in said
    assert 'corelane.advertise = "node"' in said
    bases = 'corelane.advertised.core.port.bases = "OUTSIDE:31001"\n'
    assert parse(TWO + told + bases).listeners[1].advertised_core_port_base == 31001
    assert parse(TWO + told + 'corelane.advertise = "node"').listeners[1].advertised_port == 31000


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("9092", "'9092' is not of the form NAME://host:port"),
        ("", "'' is not of the form NAME://host:port"),
        ("A://host", "'A://host' is not of the form"),
        ("A://::1:9092", "'A://::1:9092' is not of the form"),
        ("A://host:99999", "A://host:99999: the highest port is 65535"),
        ("A://host:port", "'A://host:port' is not of the form"),
        ("1A://host:1", "1A://host:1: a name is made of letters"),
        ("Ä://host:1", "a name is made of letters"),
        ("A://ho st:1", "'ho st' is neither a host name nor an address"),
        ("A://1.2.3.400:1", "'1.2.3.400' is no IPv4 address"),
        ("A://[1::2::3]:1", "must be a host alone"),
        ("SSL://host:1", "this version has no TLS"),
        ("SASL_SSL://host:1", "this version has neither TLS nor SASL"),
        ("SASL_PLAINTEXT://host:1", "this version has no SASL"),
        ("CONTROLLER://host:1", "every node is broker and controller"),
        ("B://other:5", "the name B is used twice"),
        ("C://other:4", "C://other:4: port 4 is used twice"),
    ],
)
def test_a_bad_entry_is_said_with_what_is_wrong_with_it(entry: str, sentence: str) -> None:
    found = faults(f'listeners = "B://host:4,{entry}"')
    assert list(found) == ["listeners"]
    assert sentence in found["listeners"]


def test_several_bad_entries_are_said_together() -> None:
    said = faults('listeners = "x,SSL://:1"\nadvertised.listeners = "y"')
    assert said["listeners"].count("; ") == 2, "one of them has a semicolon of its own"
    assert "'y' is not of the form" in said["advertised.listeners"]


@pytest.mark.parametrize(
    ("text", "key", "sentence"),
    [
        (TWO, "advertised.listeners", "add OUTSIDE://host:port as they reach it"),
        ('listeners = "P://:1"', "advertised.listeners", "P listens on every address"),
        (
            TWO + 'advertised.listeners = "OUTSIDE://0.0.0.0:1"',
            "advertised.listeners",
            "clients cannot connect to 0.0.0.0",
        ),
        (
            TWO + 'advertised.listeners = "OUTSIDE://:9093"',
            "advertised.listeners",
            "must not be empty",
        ),
        (
            TWO + TOLD[:-2] + ',OTHER://h:1"',
            "advertised.listeners",
            "there is no listener OTHER; there are INSIDE, OUTSIDE",
        ),
        (
            TWO + 'advertised.listeners = "OUTSIDE://h:0"',
            "advertised.listeners",
            "clients need the port",
        ),
        (TWO + TOLD + "corelane.port = 9", "corelane.port", "listeners says it in another way"),
        (
            TWO + TOLD + 'corelane.advertised.host = "h"',
            "corelane.advertised.host",
            "listeners says it in another way",
        ),
        (
            TWO + TOLD + "corelane.core.port.base = 9",
            "corelane.core.port.base",
            "listeners says it in another way",
        ),
        (
            'corelane.advertised.host = "h"\nadvertised.listeners = "PLAINTEXT://h:9092"',
            "corelane.advertised.host",
            "advertised.listeners says it in another way",
        ),
        (
            'corelane.core.port.base = 5\ncorelane.core.port.bases = "PLAINTEXT:5"',
            "corelane.core.port.base",
            "says it too",
        ),
        ('corelane.core.port.bases = "X:5"', "corelane.core.port.bases", "there is no listener X"),
        (
            'corelane.core.port.bases = "PLAINTEXT"',
            "corelane.core.port.bases",
            "'PLAINTEXT' is not of the form NAME:port",
        ),
        (
            'corelane.advertised.core.port.bases = "PLAINTEXT:65536"',
            "corelane.advertised.core.port.bases",
            "the highest port is 65535",
        ),
        ('corelane.advertised.host = "h:9092"', "corelane.advertised.host", "a host alone"),
        ('corelane.advertised.host = "http://h"', "corelane.advertised.host", "a host alone"),
        ('corelane.advertised.host = ""', "corelane.advertised.host", "must not be empty"),
        ('corelane.advertised.host = "::"', "corelane.advertised.host", "cannot connect to it"),
        ('corelane.bind.host = ""', "corelane.bind.host", "must not be empty"),
        ('corelane.bind.host = "a b"', "corelane.bind.host", "neither a host name nor an address"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    text: str, key: str, sentence: str
) -> None:
    found = faults(text)
    assert list(found) == [key]
    assert sentence in found[key]


@pytest.mark.parametrize(
    ("text", "key", "sentence"),
    [
        ("", "corelane.core.port.bases", "port 19093 is taken by core 1 of INSIDE"),
        ("corelane.peer.port = 9093", "corelane.peer.port", "port 9093 is taken by OUTSIDE"),
        ("corelane.admin.port = 19093", "corelane.admin.port", "taken by core 1 of INSIDE"),
    ],
)
def test_ports_that_meet_are_refused_by_the_number_of_cores(
    text: str, key: str, sentence: str
) -> None:
    bases = 'corelane.core.port.bases = "OUTSIDE:19093"\n' if not text else ""
    with pytest.raises(ConfigError) as caught:
        check_ports(parse(f"{TWO}{TOLD}{bases}{text}"), 2)
    (fault,) = caught.value.faults
    assert fault.key == key
    assert sentence in fault.sentence


def test_the_default_core_ports_of_neighbours_never_meet() -> None:
    check_ports(parse(TWO + TOLD), 998)


def test_more_listeners_than_can_be_are_refused() -> None:
    many = ",".join(f"L{number}://h:{number + 1}" for number in range(17))
    assert faults(f'listeners = "{many}"') == {"listeners": "there are 17; at most 16 can be"}


def test_a_port_above_the_highest_is_refused() -> None:
    bases = 'corelane.advertised.core.port.bases = "OUTSIDE:65535"'
    check_ports(parse(TWO + TOLD + bases), 1)
    with pytest.raises(ConfigError, match="would be advertised on a port above 65535"):
        check_ports(parse(TWO + TOLD + bases), 2)
    with pytest.raises(ConfigError, match="core of P would listen on port 65536"):
        check_ports(parse('listeners = "P://h:1"\ncorelane.core.port.bases = "P:65535"'), 2)
