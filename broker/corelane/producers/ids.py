"""Producer ids: handed out from blocks that the controller's log grants, each id once."""

from typing import Final

from corelane.model import limits

_REFILL_COUNT: Final = limits.PRODUCER_ID_BLOCK_COUNT // 10
"""Kafka, too, asks for the next block when a tenth of the present one is left."""


class ProducerIdAllocator:
    """The producer ids one core may hand out. What is left at its death is never used."""

    __slots__ = ("_blocks", "_is_asked")

    def __init__(self) -> None:
        self._blocks: list[tuple[int, int]] = []
        """(first, end) of what is left of each granted block, half-open, in order of grant."""
        self._is_asked = False

    @property
    def available_count(self) -> int:
        """Return how many ids can be taken without a further grant."""
        return sum(end - first for first, end in self._blocks)

    @property
    def wants_block(self) -> bool:
        """Say whether a block must be asked for now; false while one is on its way."""
        return not self._is_asked and self.available_count < _REFILL_COUNT

    def take(self) -> int | None:
        """Return an id nobody has had, or None: wait for the next grant."""
        if not self._blocks:
            return None
        first, end = self._blocks[0]
        if first + 1 == end:
            del self._blocks[0]
        else:
            self._blocks[0] = (first + 1, end)
        return first

    def block_asked(self) -> None:
        """Note that a block was asked for; exactly one grant or refusal follows."""
        assert not self._is_asked
        self._is_asked = True

    def block_granted(self, first_id: int, count: int) -> None:
        """Add a block of the controller's log."""
        assert first_id >= 0
        assert count > 0
        assert all(end <= first_id for _, end in self._blocks), "ids are granted once, rising"
        self._blocks.append((first_id, first_id + count))
        self._is_asked = False

    def block_refused(self) -> None:
        """Note that the block asked for will not come, so that another can be asked for."""
        self._is_asked = False


def bump_epoch(producer_id: int, epoch: int) -> tuple[int, int] | None:
    """Return the id and next epoch of a producer that initialises again (KIP-360).

    None: its epochs are used up, or it has no id yet; take a new id with epoch 0. For producers
    with a transactional id only, whose coordinator knows that the epoch given is theirs. Kafka
    gives an idempotent producer without one a new id each time: nobody could check its claim,
    and a bump would fence whoever really owns that id.
    """
    if producer_id < 0 or not 0 <= epoch < limits.PRODUCER_EPOCH_MAX:
        return None
    return producer_id, epoch + 1
