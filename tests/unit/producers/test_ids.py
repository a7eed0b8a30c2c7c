"""Producer ids: each once, from granted blocks; epochs that end."""

from corelane.producers.ids import ProducerIdAllocator, bump_epoch


def test_ids_rise_through_the_granted_blocks() -> None:
    ids = ProducerIdAllocator()
    ids.block_granted(5, 2)
    ids.block_granted(100, 1)
    assert [ids.take() for _ in range(4)] == [5, 6, 100, None]


def test_a_block_is_asked_for_once_and_before_the_last_one_is_empty() -> None:
    ids = ProducerIdAllocator()
    assert ids.wants_block
    ids.block_asked()
    assert not ids.wants_block
    ids.block_granted(0, 1_000)
    taken = 0
    while not ids.wants_block:
        assert ids.take() == taken
        taken += 1
    assert taken == 901


def test_after_a_refusal_another_block_may_be_asked_for() -> None:
    ids = ProducerIdAllocator()
    ids.block_asked()
    ids.block_refused()
    assert ids.wants_block


def test_a_producer_that_initialises_again_gets_its_next_epoch() -> None:
    assert bump_epoch(7, 0) == (7, 1)
    assert bump_epoch(7, 32_765) == (7, 32_766)


def test_a_producer_without_id_or_with_used_up_epochs_needs_a_new_id() -> None:
    assert bump_epoch(7, 32_766) is None
    assert bump_epoch(-1, -1) is None
