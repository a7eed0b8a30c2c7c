"""The corelane command."""
