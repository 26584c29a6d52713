"""Brokers: they carry pointers, never work, and only say where to look."""
