"""A core and the cores of other nodes: frames, failure detection, who leads what."""
