"""Values that every layer speaks: ids, limits, errors, configuration, metrics."""
