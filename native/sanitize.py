"""Builds the C core with the address and undefined-behaviour sanitizers, and runs its tests so.

    python native/sanitize.py [pytest arguments]

Nothing outside a temporary directory is touched. The exit status is that of the tests.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "native" / "corelane_native"
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g"
TESTS = "tests/unit/native"


def build(directory: Path) -> Path:
    """Build the extension below *directory* and return what PYTHONPATH must name."""
    library = directory / "lib"
    command = [sys.executable, "setup.py", "-q", "build_ext"]
    command += ["--build-lib", str(library), "--build-temp", str(directory / "objects")]
    environment = os.environ | {"CFLAGS": FLAGS, "LDFLAGS": FLAGS}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    for source in PACKAGE.glob("*.py"):
        shutil.copy(source, library / PACKAGE.name)
    return library


def runtime_library() -> str:
    """Return the path of the sanitizer's runtime, which must be loaded before Python."""
    command = ["gcc", "-print-file-name=libasan.so"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def main() -> int:
    """Build, then run the tests."""
    with tempfile.TemporaryDirectory(prefix="corelane-sanitize-") as name:
        environment = os.environ | {
            "PYTHONPATH": str(build(Path(name))),
            "LD_PRELOAD": runtime_library(),
            "ASAN_OPTIONS": "detect_leaks=0",  # Python's own are not ours to judge
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "CORELANE_SANITIZED": "1",
        }
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        return subprocess.run(
            command + (sys.argv[1:] or [TESTS]), cwd=ROOT, env=environment, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
