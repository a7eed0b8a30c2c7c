"""The files the tidy tests look at, and nothing that git would not keep."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
TOPS = ("broker", "clients", "native", "tests", "bench")
_SKIPPED = {"__pycache__", "build", "node_modules", "target"}


def find(*patterns: str) -> list[Path]:
    """Return our own files matching any of *patterns*, in a stable order."""
    found = {
        path
        for top in TOPS
        for pattern in patterns
        for path in (ROOT / top).rglob(pattern)
        if not _SKIPPED & set(path.parts) and path.is_file()
    }
    return sorted(found)


def name(path: Path) -> str:
    """Return *path* as a person would write it from the root of the repository."""
    return str(path.relative_to(ROOT))


PYTHON = [*find("*.py", "*.pyi"), ROOT / "setup.py"]
C = find("*.c", "*.h")
MARKDOWN = sorted([*find("*.md"), *ROOT.glob("*.md")])
