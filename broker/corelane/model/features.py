"""Kafka's features that this version knows, and their levels (KIP-584)."""

from typing import Final

GROUP: Final = "group.version"
TRANSACTION: Final = "transaction.version"
GROUP_VERSION: Final = 1
"""group.version: the new consumer protocol (KIP-848)."""
TRANSACTION_VERSION: Final = 2
"""transaction.version: 2 is an epoch for each transaction (KIP-890)."""
