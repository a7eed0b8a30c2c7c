"""A network of their own for the nodes of a test: a namespace for each, and a bridge between.

`command` runs a program in new namespaces of network and mounts, where a `Network` may be made and
file systems be mounted; all of it is gone when its processes are. That needs root, or a kernel that
gives users namespaces of their own; where neither is there, `MissingError` says so.

A direction is cut by a wrong address of the other's card: what is sent is lost without a word, as
in a network that fails, and whoever sends is told nothing. All it needs is the bridge and veth.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path

CLIENTS = 0
"""The namespace of the test itself."""
NOBODY = "02:00:00:00:00:99"
"""A card that nobody has."""
TOOLS = ("ip", "tc", "unshare", "nsenter")
MADE_S_MAX = 10.0
SLOW_MS = 100


class MissingError(Exception):
    """This machine cannot give a test a network of its own; the message says what is missing."""


def command(program: list[str]) -> list[str]:
    """Return how *program* is started in namespaces of its own."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        raise MissingError(
            f"{', '.join(missing)} is missing, which makes networks for tests: run"
            " `apt-get install iproute2 util-linux` as root."
        )
    own = ["unshare", "--net", "--mount"]
    if os.geteuid() != 0:
        own += ["--user", "--map-root-user"]
    tried = subprocess.run(
        [*own, "ip", "link", "add", "br0", "type", "bridge"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if tried.returncode != 0:
        raise MissingError(
            f"no namespace for a test's network can be made ({tried.stderr.strip()}). Run the tests"
            " as root, or allow users their own: sysctl kernel.unprivileged_userns_clone=1, and"
            " kernel.apparmor_restrict_unprivileged_userns=0 where there is AppArmor."
        )
    return [*own, "--", *program]


class Network:
    """The namespaces of nodes 1 to *count*. To be made in a process that `command` started."""

    def __init__(self, count: int) -> None:
        self._holders: dict[int, subprocess.Popen[bytes]] = {}
        self._cut: set[tuple[int, int]] = set()
        _run("ip link set lo up")
        _run(f"ip link add br0 address {_address(CLIENTS)} type bridge")
        _run(f"ip addr add {self.host(CLIENTS)}/24 dev br0")
        _run("ip link set br0 up")
        for number in range(1, count + 1):
            self._add(number)
        ends = [CLIENTS, *self._holders]
        for one in ends:
            for other in ends:
                if one != other:
                    self._know(one, other, _address(other))

    @staticmethod
    def host(number: int) -> str:
        """Return the address of a node, or of the clients."""
        return f"10.9.0.{number or 254}"

    def prefix(self, number: int) -> list[str]:
        """Return what starts a program in a node's namespace."""
        return ["nsenter", "-t", str(self._holders[number].pid), "-n", "--"]

    def cut(self, sender: int, receiver: int) -> None:
        """Lose all that *sender* sends to *receiver*."""
        self._know(sender, receiver, NOBODY)
        self._cut.add((sender, receiver))

    def isolate(self, number: int) -> None:
        """Lose all that a node sends to anybody, and anybody to it."""
        for other in (CLIENTS, *self._holders):
            if other != number:
                self.cut(number, other)
                self.cut(other, number)

    def slow(self, number: int) -> str:
        """Delay what a node sends; return how, as far as the kernel can."""
        inside = f"{self._in(number)} tc qdisc replace dev eth0 root"
        try:
            _run(f"{inside} netem delay {SLOW_MS}ms {SLOW_MS // 2}ms")
        except MissingError:
            # Without netem a narrow link: what it carries waits for each other.
            _run(f"{inside} tbf rate 2mbit burst 16kbit latency {4 * SLOW_MS}ms")
            return "2 Mbit/s"
        return f"{SLOW_MS} ms"

    def heal(self) -> None:
        """Lose and delay nothing any more."""
        for sender, receiver in [*self._cut]:
            self._know(sender, receiver, _address(receiver))
        self._cut.clear()
        for number in self._holders:
            inside = self.prefix(number)
            subprocess.run([*inside, "tc", "qdisc", "del", "dev", "eth0", "root"],
                           capture_output=True, check=False)  # fmt: skip

    def close(self) -> None:
        """End the namespaces."""
        for holder in self._holders.values():
            holder.kill()
            holder.wait()

    def _add(self, number: int) -> None:
        holder = subprocess.Popen(["unshare", "--net", "sleep", "86400"])
        self._holders[number] = holder
        own = Path("/proc/self/ns/net").readlink()
        deadline_s = time.monotonic() + MADE_S_MAX
        while Path(f"/proc/{holder.pid}/ns/net").readlink() == own:
            if time.monotonic() > deadline_s:
                raise MissingError("a namespace for a node was not made in ten seconds.")
            time.sleep(0.01)
        _run(
            f"ip link add v{number} type veth peer name eth0 address"
            f" {_address(number)} netns {holder.pid}"
        )
        _run(f"ip link set v{number} master br0 up")
        inside = self._in(number)
        _run(f"{inside} ip link set lo up")
        _run(f"{inside} ip addr add {self.host(number)}/24 dev eth0")
        _run(f"{inside} ip link set eth0 up")

    def _know(self, one: int, other: int, card: str) -> None:
        """Say by which card *one* reaches *other*."""
        to = f"{self.host(other)} lladdr {card} nud permanent dev {_card(one)}"
        _run(f"{self._in(one)} ip neigh replace {to}")

    def _in(self, number: int) -> str:
        return "" if number == CLIENTS else " ".join(self.prefix(number))


def mount_memory(directory: Path, size_bytes: int) -> None:
    """Mount a file system of memory, of that size, on a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    _run(f"mount -t tmpfs -o size={size_bytes} corelane {directory}")


def unmount(directory: Path) -> None:
    """Undo `mount_memory`."""
    _run(f"umount {directory}")


def _card(number: int) -> str:
    return "br0" if number == CLIENTS else "eth0"


def _address(number: int) -> str:
    return f"02:00:00:00:00:{number:02x}"


def _run(line: str) -> str:
    done = subprocess.run(line.split(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MissingError(f"`{line.strip()}` failed: {done.stderr.strip()}")
    return done.stdout.strip()
