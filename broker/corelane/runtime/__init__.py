"""The only trio in the broker: carries bytes and time, decides nothing."""
