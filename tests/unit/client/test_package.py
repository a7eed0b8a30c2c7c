"""What `import corelane_client` offers."""

import importlib
import subprocess
import sys

import pytest

import corelane_client


@pytest.mark.parametrize("name", corelane_client.__all__)
def test_every_public_name_is_where_the_package_says(name: str) -> None:
    found = getattr(corelane_client, name)
    assert found.__name__ == name
    assert found.__module__ == corelane_client._HOME[name]
    assert found.__doc__


def test_there_are_no_other_names() -> None:
    assert sorted(corelane_client._HOME) == sorted(corelane_client.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = corelane_client.Nothing


def test_administering_loads_no_codec() -> None:
    script = "import sys; from corelane_client import Admin; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    loaded = set(done.stdout.decode().split())
    assert "corelane_client.admin" in loaded
    assert not loaded & {"zstandard", "lz4", "cramjam", "corelane.wire.records"}


@pytest.mark.parametrize("module", ["connection", "producer", "consumer", "admin"])
def test_the_client_needs_nothing_native_of_the_broker(module: str) -> None:
    importlib.import_module(f"corelane_client.{module}")
    script = f"import sys, corelane_client.{module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    loaded = set(done.stdout.decode().split())
    assert not {name for name in loaded if name.startswith(("corelane_native", "corelane.shard"))}
