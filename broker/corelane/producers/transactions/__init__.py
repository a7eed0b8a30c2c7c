"""The coordinator of transactions: what one partition of `__transaction_state` decides."""
