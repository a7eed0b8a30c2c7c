"""Developer tools that make generated parts of the repository."""
