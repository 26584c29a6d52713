"""How requests leave a worker: built, guarded, sent, and read."""
