"""Deterministic simulation: the real engine and services in a world that fails on purpose.

One seed is one story: virtual time, one thread, one source of randomness.
"""
