"""Corelane: a Kafka-compatible streaming log broker, one process per core."""
