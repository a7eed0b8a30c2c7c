"""Compiles the fuzz target with the sanitizers and runs it over the corpus.

    python native/fuzz/fuzz.py [iterations] [seed]

A crash prints the sanitizer's report; the same seed and iterations bring it back.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

FUZZ = Path(__file__).resolve().parent
SOURCE = FUZZ.parent / "src"
CORPUS = FUZZ / "corpus"
FLAGS = [
    *("-std=c11", "-D_GNU_SOURCE=1", "-O1", "-g", "-pthread"),
    *("-Wall", "-Wextra", "-Wconversion", "-Werror"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
]
ITERATIONS = 1_000_000


def build(directory: Path) -> Path:
    """Compile the target and the whole core into *directory*; return the program."""
    program = directory / "fuzz"
    sources = [*sorted(SOURCE.glob("*.c")), FUZZ / "fuzz.c"]
    command = ["gcc", *FLAGS, f"-I{SOURCE}", "-o", str(program), *map(str, sources)]
    subprocess.run(command, check=True)
    return program


def run(program: Path, iterations: int, seed: int) -> subprocess.CompletedProcess[str]:
    """Run the target over the corpus."""
    corpus = sorted(str(path) for path in CORPUS.glob("*.bin"))
    command = [str(program), str(seed), str(iterations), *corpus]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def main() -> int:
    """Build and run."""
    iterations = int(sys.argv[1]) if len(sys.argv) > 1 else ITERATIONS
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with tempfile.TemporaryDirectory(prefix="corelane-fuzz-") as name:
        done = run(build(Path(name)), iterations, seed)
    print(done.stdout, end="")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
