"""A bounded run of the fuzz target, and the corpus it starts from."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.native.batches import batch, record, simple
from tests.unit.native.test_decode import FETCHED, GOOD, fetch_frame, produce_frame

FUZZ = Path(__file__).parents[3] / "native" / "fuzz"
ITERATIONS = 100_000


def samples() -> dict[str, bytes]:
    """Return every file of the corpus: small, and each way through the decoders once."""
    headers = [(b"trace", b"abc"), (b"", None)]
    rich = record(0, b"key", b"value", 7, headers) + record(1, None, None, -3)
    found = {
        "batch-simple.bin": simple([b"", b"x" * 200, b"y" * 20_000]),
        "batch-headers.bin": batch(rich, 2, producer_id=5, producer_epoch=0, base_sequence=9),
        "batch-compressed.bin": batch(b"\x28\xb5\x2f\xfd" + bytes(40), 3, attributes=4),
        "batch-deltas.bin": batch(b"".join(record(at) for at in range(300)), 300),
    }
    for version in (3, 6, 7, 9, 11):
        frame = produce_frame(version, [("one", [(0, GOOD), (1, None)]), ("two", [(2, GOOD)])])
        found[f"produce-{version}-two-topics.bin"] = frame
        found[f"produce-{version}-one.bin"] = produce_frame(
            version, [("one", [(0, simple([b"one", b"two"]))])]
        )
    for version in (4, 5, 7, 9, 11, 12, 13, 15, 17):
        found[f"fetch-{version}.bin"] = fetch_frame(version, [FETCHED, FETCHED])
    return found


def module() -> ModuleType:
    """Load native/fuzz/fuzz.py, which is a script."""
    spec = importlib.util.spec_from_file_location("fuzz", FUZZ / "fuzz.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_the_corpus_is_what_the_builders_make() -> None:
    """REWRITE=1 in the environment writes it anew."""
    corpus = FUZZ / "corpus"
    if os.environ.get("REWRITE"):
        for name, data in samples().items():
            (corpus / name).write_bytes(data)
    assert {path.name: path.read_bytes() for path in corpus.iterdir()} == samples()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built: Path = module().build(tmp_path_factory.mktemp("fuzz"))
    return built


def test_nothing_hostile_is_read_or_written_outside(program: Path) -> None:
    done = module().run(program, ITERATIONS, 20_240_601)
    assert done.returncode == 0, done.stdout
    counts = [int(word) for word in done.stdout.split() if word.isdigit()]
    assert min(counts) > ITERATIONS // 1000, done.stdout  # the mutants are not all refused at once


def test_a_planted_read_too_far_is_found(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUZZ_PLANTED", "1")
    done = module().run(program, 10_000, 1)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stdout
