"""Installs the tools other people wrote, into `.tools`, and says in a sentence what is missing."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".tools"
HERE = Path(__file__).parent
INSTALL_S_MAX = 900


class ToolMissingError(Exception):
    """A tool is not there and could not be installed; the message says what to do."""


def kcat() -> str:
    """Return the path of kcat, installing Debian's package where we may."""
    found = shutil.which("kcat") or shutil.which("kafkacat")
    if found:
        return found
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise ToolMissingError(
            "kcat is missing and only root can install Debian's package: "
            "run `apt-get install kcat` as root."
        )
    _run(["apt-get", "update", "-qq"], "Debian's package lists")
    _run(["apt-get", "install", "-y", "-qq", "kcat"], "kcat")
    found = shutil.which("kcat")
    if not found:
        raise ToolMissingError("`apt-get install kcat` went well, but kcat is not on PATH.")
    return found


def java() -> str:
    """Return the path of a Java runtime."""
    found = shutil.which("java")
    if not found:
        raise ToolMissingError(
            "Java is missing, and Kafka's own tools need version 17 or newer: "
            "run `apt-get install openjdk-17-jre-headless maven`."
        )
    return found


def kafka_libs() -> Path:
    """Return the folder with the jars of Apache Kafka's broker and tools, fetched by Maven."""
    java()
    pom = HERE / "kafka_tools" / "pom.xml"
    libs = TOOLS / "kafka" / "libs"
    stamp = TOOLS / "kafka" / "pom.sha256"
    digest = hashlib.sha256(pom.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return libs
    maven = shutil.which("mvn")
    if not maven:
        raise ToolMissingError(
            "Maven is missing, which fetches Kafka's own tools: run `apt-get install maven`."
        )
    shutil.rmtree(libs, ignore_errors=True)
    goal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
    command = [maven, "-q", "-B", "-f", str(pom), goal, f"-DoutputDirectory={libs}"]
    _run(command, "Kafka's own tools")
    stamp.write_text(digest)
    return libs


def franz_go() -> Path:
    """Return the path of the franz-go program, built from `franz_go`."""
    source = HERE / "franz_go"
    program = TOOLS / "franz_go" / "conformance"
    go = shutil.which("go")
    if not go:
        raise ToolMissingError(
            "Go is missing, which franz-go needs: install version 1.26 or newer."
        )
    program.parent.mkdir(parents=True, exist_ok=True)
    # Go's own cache makes this a matter of moments when nothing changed.
    _run([go, "build", "-C", str(source), "-o", str(program), "."], "the franz-go program")
    return program


def _run(command: list[str], what: str) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        message = f"{what} could not be installed within {INSTALL_S_MAX} s: {' '.join(command)}"
        raise ToolMissingError(message) from None
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip())[-2000:]
        message = f"{what} could not be installed ({' '.join(command)}):\n{reason}"
        raise ToolMissingError(message)
