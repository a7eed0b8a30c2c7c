"""The controller's fold: topics, configurations, producer ids."""
