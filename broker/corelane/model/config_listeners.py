"""Where clients come in, and what they are told to connect to: Kafka's listeners, resolved.

Kafka's two strings say it (`listeners` and `advertised.listeners`, "NAME://host:port,..."); a node
with one address needs neither and says `corelane.bind.host`, `corelane.port` and
`corelane.advertised.host` instead. Each core has a port of its own on every listener, beside the
bootstrap port, so each listener also has the port of core 0, in the grammar of Kafka's other maps
("NAME:port,...").
"""

import ipaddress
import re
from typing import TYPE_CHECKING, Final

from corelane.model import limits
from corelane.model.config_keys import KEYS_BY_NAME
from corelane.model.record import record

if TYPE_CHECKING:
    from corelane.model.config import NetworkConfig

LISTENER_DEFAULT: Final = "PLAINTEXT"
CORE_PORTS_AFTER: Final = 10_000
"""How far the port of core 0 is from the bootstrap port when nobody says."""
CORE_PORTS_APART: Final = 1_000
"""How much farther with each further listener: those of two neighbouring ports never meet."""
LISTENERS_MAX: Final = 16
WILDCARDS: Final = ("0.0.0.0", "::")  # noqa: S104 (compared, not bound)

assert CORE_PORTS_APART > limits.CORES_MAX

_LISTENERS: Final = "listeners"
_ADVERTISED: Final = "advertised.listeners"
CORE_PORT_BASES: Final = "corelane.core.port.bases"
_ADVERTISED_BASES: Final = "corelane.advertised.core.port.bases"
_HOST: Final = "corelane.advertised.host"

_REFUSED_NAMES: Final = {
    "CONTROLLER": "every node is broker and controller, and needs no such listener; leave it out",
    "SSL": "this version has no TLS; give a plaintext listener another name",
    "SASL_SSL": "this version has neither TLS nor SASL; give a plaintext listener another name",
    "SASL_PLAINTEXT": "this version has no SASL; give a plaintext listener another name",
}
_NAME: Final = re.compile(r"[A-Z][A-Z0-9_.-]{0,63}", re.ASCII)
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?", re.ASCII)
_ENTRY: Final = re.compile(r"([^:/\s]+)://(\[[^\]]*\]|[^:\[\]]*):(\d{1,5})", re.ASCII)
_PAIR: Final = re.compile(r"([^:/\s]+):(\d{1,5})", re.ASCII)


@record
class Listener:
    """One way in. A port of 0 is any free one, or what is advertised then: the one it became."""

    name: str
    bind_host: str
    port: int
    """The bootstrap port: reaches some core."""
    core_port_base: int
    """Core i listens on this + i."""
    advertised_host: str
    advertised_port: int
    """What clients are told in advertise=node; 0: the bootstrap port."""
    advertised_core_port_base: int
    """Of core i clients are told this + i, in advertise=core; 0: the port it listens on."""


class Faults:
    """Sentences by the key that is wrong."""

    def __init__(self) -> None:
        self.by_key: dict[str, str] = {}

    def add(self, key: str, sentence: str) -> None:
        """Note a fault; several of one key become one text."""
        known = self.by_key.get(key)
        self.by_key[key] = sentence if known is None else f"{known}; {sentence}"


def resolve(network: "NetworkConfig", faults: Faults) -> list[Listener]:
    """Return the listeners in their order; what is wrong goes to *faults*."""
    addresses = _addresses(_LISTENERS, network.listeners, faults)
    if len(addresses) > LISTENERS_MAX:
        faults.add(_LISTENERS, f"there are {len(addresses)}; at most {LISTENERS_MAX} can be")
    if network.listeners:
        _refuse_shorthand(network, faults)
    else:
        _check_shorthand(network, faults)
        addresses = {LISTENER_DEFAULT: (network.bind_host, network.port)}
    advertised = _addresses(_ADVERTISED, network.advertised_listeners, faults)
    bases = _ports(CORE_PORT_BASES, network.core_port_bases, faults)
    advertised_bases = _ports(_ADVERTISED_BASES, network.advertised_core_port_bases, faults)
    for key, named in (
        (_ADVERTISED, advertised),
        (CORE_PORT_BASES, bases),
        (_ADVERTISED_BASES, advertised_bases),
    ):
        for name in named.keys() - addresses.keys():
            faults.add(key, f"there is no listener {name}; there are {', '.join(addresses)}")
    found = []
    for number, (name, (host, port)) in enumerate(addresses.items()):
        base = bases.get(name, -1)
        if base < 0 and not network.listeners:
            base = network.core_port_base
        if base < 0:
            base = port + CORE_PORTS_AFTER + number * CORE_PORTS_APART if port else 0
        told = advertised.get(name)
        if told is None:
            told = (host if network.listeners else network.advertised_host, 0)
            _check_untold(network, name, host, faults)
        else:
            _check_told(network, name, (port, *told), advertised_bases, faults)
        told_base = advertised_bases.get(name, 0)
        found.append(Listener(name, host or WILDCARDS[0], port, base, *told, told_base))
    return found


def port_faults(
    listeners: list[Listener], network: "NetworkConfig", core_count: int, faults: Faults
) -> None:
    """Look for ports of one node that meet, or that do not exist, with so many cores."""
    bootstrap_key = _LISTENERS if network.listeners else "corelane.port"
    base_key = (
        CORE_PORT_BASES
        if network.listeners or network.core_port_bases
        else "corelane.core.port.base"
    )
    used: dict[int, str] = {}

    def use(port: int, what: str, key: str) -> None:
        if port in used:
            faults.add(key, f"port {port} is taken by {used[port]}")
        elif port:
            used[port] = what

    for listener in listeners:
        of = f" of {listener.name}" if network.listeners else ""
        what = listener.name if network.listeners else "corelane.port"
        use(listener.port, what, bootstrap_key)
        base = listener.core_port_base
        last = base + core_count - 1
        if last > limits.PORT_MAX:
            sentence = f"the last core{of} would listen on port {last}"
            faults.add(base_key, f"{sentence}; the highest is {limits.PORT_MAX}")
        elif base:
            for core in range(core_count):
                if base + core in used:  # one sentence tells enough of a range
                    use(base + core, "", base_key)
                    break
                used[base + core] = f"core {core}{of}"
        if listener.advertised_core_port_base + core_count - 1 > limits.PORT_MAX:
            sentence = f"the last core{of} would be advertised on a port above {limits.PORT_MAX}"
            faults.add(_ADVERTISED_BASES, sentence)
    use(network.peer_port, "corelane.peer.port", "corelane.peer.port")
    use(network.admin_port, "corelane.admin.port", "corelane.admin.port")


def host_fault(host: str) -> str | None:
    """Return what is wrong with the text of a host name or address; None: nothing."""
    if not host:
        return "must not be empty"
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return f"must be a host alone, with no port or protocol, not {host!r}"
        return None
    if re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            return f"{host!r} is no IPv4 address"
    if _HOST_NAME.fullmatch(host) is None or len(host) > limits.HOST_CHARACTERS_MAX:
        return f"{host!r} is neither a host name nor an address"
    return None


def _addresses(key: str, text: str, faults: Faults) -> dict[str, tuple[str, int]]:
    """Return host and port by the name of the listener, in the order of the text."""
    found: dict[str, tuple[str, int]] = {}
    for entry in _split(text):
        match = _ENTRY.fullmatch(entry)
        if match is None:
            faults.add(key, f"{entry!r} is not of the form NAME://host:port")
            continue
        name, host, port = match[1].upper(), match[2].strip("[]"), int(match[3])
        fault = _name_fault(name, found) or _port_fault(port)
        if fault is None and (host or key == _ADVERTISED):
            fault = host_fault(host)
        if fault is None and key == _ADVERTISED and host in WILDCARDS:
            fault = f"clients cannot connect to {host}; name a host or address they can reach"
        if fault is None and port and port in [known for _, known in found.values()]:
            fault = f"port {port} is used twice" if key == _LISTENERS else None
        if fault is None:
            found[name] = (host, port)
        else:
            faults.add(key, f"{entry}: {fault}")
    return found


def _ports(key: str, text: str, faults: Faults) -> dict[str, int]:
    found: dict[str, int] = {}
    for entry in _split(text):
        match = _PAIR.fullmatch(entry)
        if match is None:
            faults.add(key, f"{entry!r} is not of the form NAME:port")
            continue
        name, port = match[1].upper(), int(match[2])
        fault = _name_fault(name, found) or _port_fault(port)
        if fault is None:
            found[name] = port
        else:
            faults.add(key, f"{entry}: {fault}")
    return found


def _split(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",")] if text.strip() else []


def _name_fault(name: str, known: dict[str, tuple[str, int]] | dict[str, int]) -> str | None:
    if name in _REFUSED_NAMES:
        return _REFUSED_NAMES[name]
    if _NAME.fullmatch(name) is None:
        return "a name is made of letters, digits, dots, dashes and underscores"
    return f"the name {name} is used twice" if name in known else None


def _port_fault(port: int) -> str | None:
    return None if port <= limits.PORT_MAX else f"the highest port is {limits.PORT_MAX}"


def _refuse_shorthand(network: "NetworkConfig", faults: Faults) -> None:
    """With `listeners`, the settings of a single one say nothing any more."""
    for key in ("corelane.port", "corelane.core.port.base", _HOST):
        row = KEYS_BY_NAME[key]
        if getattr(network, row.path.split(".")[1]) != row.default:
            faults.add(key, f"{_LISTENERS} says it in another way; keep one of them")


def _check_shorthand(network: "NetworkConfig", faults: Faults) -> None:
    fault = host_fault(network.advertised_host)
    if fault is None and network.advertised_host in WILDCARDS:
        fault = "is told to clients, who cannot connect to it; name a host or address they can"
    if fault is not None:
        faults.add(_HOST, fault)
    if network.core_port_bases and network.core_port_base >= 0:
        faults.add("corelane.core.port.base", f"{CORE_PORT_BASES} says it too; keep one of them")
    if network.advertised_listeners and network.advertised_host != KEYS_BY_NAME[_HOST].default:
        faults.add(_HOST, f"{_ADVERTISED} says it in another way; keep one of them")


def _check_untold(network: "NetworkConfig", name: str, host: str, faults: Faults) -> None:
    """A listener that is advertised where it listens must listen on a real address."""
    if network.listeners and host in ("", *WILDCARDS):
        sentence = f"{name} listens on every address, and clients cannot be told {host or 'none'}"
        faults.add(_ADVERTISED, f"{sentence}; add {name}://host:port as they reach it")


def _check_told(
    network: "NetworkConfig",
    name: str,
    ports: tuple[int, str, int],
    advertised_bases: dict[str, int],
    faults: Faults,
) -> None:
    """Where the bootstrap port is another one outside, so may be those of the cores."""
    bound, host, told = ports
    if told == 0 and bound != 0:
        faults.add(_ADVERTISED, f"{name}://{host}:0: clients need the port they are to connect to")
    if network.advertise == "core" and told not in (0, bound) and name not in advertised_bases:
        faults.add(
            _ADVERTISED,
            f"{name} is reached on another port ({told}) than it listens on ({bound}), so say where"
            f' its cores are reached: {_ADVERTISED_BASES} = "{name}:PORT" (of core 0; core i on'
            ' PORT + i), or set corelane.advertise = "node", where one address is enough',
        )
