"""The write-ahead log, segments, checkpoints and recovery of one core."""
