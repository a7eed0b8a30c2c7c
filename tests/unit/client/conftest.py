"""The cluster in memory that the client's tests talk to."""

import pytest
import trio
from trio.testing import MockClock

from tests.unit.client.fake import Cluster


@pytest.fixture
def cluster(nursery: trio.Nursery) -> Cluster:
    return Cluster(nursery)


@pytest.fixture
def clock() -> MockClock:
    """Make waiting take no time; pytest-trio runs the test under it."""
    return MockClock(autojump_threshold=0)
