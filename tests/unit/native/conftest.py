"""Fixtures for the tests of the C core."""

from collections.abc import Iterator

import pytest

from tests.unit.native.netbench import Bench


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with Bench(**getattr(request, "param", {})) as made:
        yield made
