"""The levels of features are raised and lowered as `kafka-features` does (KIP-584)."""

import pytest

from corelane.model.errors import ErrorCode
from corelane.wire.compiler import Message, message_type
from tests.unit.api.world import World

UPGRADE, SAFE, UNSAFE = 1, 2, 3
NEWEST = 2


@pytest.fixture
def world() -> World:
    return World()


def update(
    world: World,
    *rows: tuple[str, int, int],
    version: int = NEWEST,
    validate_only: bool = False,
) -> Message:
    key = message_type("UpdateFeaturesRequest.FeatureUpdateKey")
    updates = [
        key(feature=name, max_version_level=level, upgrade_type=kind) for name, level, kind in rows
    ]
    if version == 0:
        updates = [
            key(feature=name, max_version_level=level, allow_downgrade=kind != UPGRADE)
            for name, level, kind in rows
        ]
    request = message_type("UpdateFeaturesRequest")(
        feature_updates=updates, validate_only=validate_only
    )
    return world.call(request, version)


def levels(world: World) -> tuple[dict[str, int], int]:
    """Return what clients are told, and its epoch."""
    request = message_type("ApiVersionsRequest")
    answer = world.call(request(client_software_name="t", client_software_version="1"), 4)
    found = {row.name: row.max_version_level for row in answer.finalized_features}
    return found, answer.finalized_features_epoch


def test_a_level_goes_down_and_up_again_with_another_epoch(world: World) -> None:
    before, first = levels(world)
    assert before == {"group.version": 1, "transaction.version": 2}
    answer = update(world, ("transaction.version", 1, SAFE))
    assert (answer.error_code, answer.error_message, answer.results) == (0, None, [])
    after, second = levels(world)
    assert after == {"group.version": 1, "transaction.version": 1}
    assert second > first
    assert world.shard.groups.cluster.transaction_version == 1
    assert update(world, ("transaction.version", 2, UPGRADE)).error_code == 0
    assert levels(world)[0] == before


def test_a_feature_at_level_0_is_off(world: World) -> None:
    update(world, ("transaction.version", 0, UNSAFE), ("group.version", 0, UNSAFE))
    assert levels(world)[0] == {}
    beat = message_type("ConsumerGroupHeartbeatRequest")(group_id="g", member_id="m")
    assert world.call(beat, 1).error_code == ErrorCode.UNSUPPORTED_VERSION
    describe = message_type("ConsumerGroupDescribeRequest")(group_ids=["g"])
    assert world.call(describe, 1).groups[0].error_code == ErrorCode.UNSUPPORTED_VERSION
    update(world, ("group.version", 1, UPGRADE))
    assert world.call(beat, 1).error_code != ErrorCode.UNSUPPORTED_VERSION


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (("transaction.version", 1, UPGRADE), "without setting the upgrade type"),
        (("transaction.version", 3, UPGRADE), "only supports versions 0-2"),
        (("transaction.version", -1, UNSAFE), "less than 0"),
        (("transaction.version", 1, 0), "upgrade type"),
        (("metadata.version", 20, UPGRADE), "does not support this feature"),
    ],
)
def test_what_does_not_fit_is_refused_as_a_whole(
    world: World, row: tuple[str, int, int], said: str
) -> None:
    before = levels(world)
    answer = update(world, ("group.version", 0, SAFE), row)
    assert answer.error_code == ErrorCode.INVALID_UPDATE_VERSION
    assert f"Invalid update version {row[1]} for feature {row[0]}." in answer.error_message
    assert said in answer.error_message
    assert levels(world) == before


@pytest.mark.parametrize("version", [0, 1])
def test_older_versions_have_a_row_for_what_was_updated(world: World, version: int) -> None:
    answer = update(world, ("transaction.version", 1, SAFE), version=version)
    assert [(row.feature, row.error_code) for row in answer.results] == [("transaction.version", 0)]
    answer = update(world, ("transaction.version", 0, UPGRADE), version=version)
    assert answer.error_code == ErrorCode.INVALID_UPDATE_VERSION
    assert not answer.results


def test_a_trial_changes_nothing_and_nothing_is_no_change(world: World) -> None:
    before = levels(world)
    assert update(world, ("transaction.version", 1, SAFE), validate_only=True).error_code == 0
    assert update(world).error_code == 0
    assert levels(world) == before
    twice = ("transaction.version", 1, SAFE)
    assert update(world, twice, twice).error_code == ErrorCode.INVALID_REQUEST


def test_what_was_chosen_outlives_a_restart(world: World) -> None:
    update(world, ("transaction.version", 1, SAFE))
    world.shard.groups.cluster = type(world.shard.groups.cluster).decode(
        world.shard.groups.cluster.encode()
    )
    assert levels(world)[0]["transaction.version"] == 1
