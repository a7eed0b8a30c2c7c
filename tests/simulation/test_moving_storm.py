"""A few steps of storms in which replicas move and a disk is lost; moving_storm.py has the rest."""

from tests.simulation.moving_storm import MovingStorm


class ShortStorm(MovingStorm):
    """Short enough for every run of the tests."""

    steps = 120


def test_replicas_move_in_a_storm_and_who_moves_them_is_struck() -> None:
    storm = ShortStorm(2)
    storm.run()
    assert {"balancer", "leading"} <= {name.split()[0] for name in storm.blows}
    assert any(name.endswith("stopped") for name in storm.blows)


def test_a_disk_is_lost_in_a_storm() -> None:
    storm = ShortStorm(1)
    storm.run()
    assert storm.lost is not None
