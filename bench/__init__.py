"""Benchmarks: each workload on the whole stack, next to its floor, the same hops done bare."""
