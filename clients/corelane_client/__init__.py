"""A Kafka client for trio."""
