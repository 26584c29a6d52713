"""NATS from the side of steps: connections, key-value and object stores, messages."""
