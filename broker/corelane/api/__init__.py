"""One table of Kafka APIs and one module for each."""
