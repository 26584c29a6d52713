"""What runs in the peers' environments. Imports nothing of ours but ``bench.peers.programs``."""
