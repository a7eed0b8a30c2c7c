"""The Kafka protocol without I/O."""
