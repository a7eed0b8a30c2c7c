"""Transactions on three simulated nodes in bad weather; long hunts have a command of their own."""

import pytest

from tests.simulation.transaction_storm import TransactionStorm


@pytest.mark.parametrize("seed", [1, 2])
def test_a_storm_leaves_every_transaction_whole(seed: int) -> None:
    assert "reads" in TransactionStorm(seed, steps=60).run()
