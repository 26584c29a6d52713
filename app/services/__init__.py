"""Use cases on ports: what Callboard does, without saying what it does it with."""
