"""One raft group as a function of its inputs."""
