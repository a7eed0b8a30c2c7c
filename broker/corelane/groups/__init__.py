"""Consumer groups: who has which partitions, and how far each has read."""
