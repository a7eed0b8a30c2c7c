"""The topics that the broker writes itself: their names, as Kafka's tools know them."""

from typing import Final

OFFSETS_TOPIC: Final = "__consumer_offsets"
"""Consumer groups: who is in them, and how far they have read."""
TRANSACTIONS_TOPIC: Final = "__transaction_state"
"""Transactions: which are open, and what became of them."""

INTERNAL_TOPICS: Final = frozenset({OFFSETS_TOPIC, TRANSACTIONS_TOPIC})
"""Clients may read them and not write them."""
