"""What a partition remembers of its idempotent producers."""
