"""The one Python door to the C core."""
