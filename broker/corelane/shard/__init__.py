"""One core's whole world as a synchronous, deterministic step."""
