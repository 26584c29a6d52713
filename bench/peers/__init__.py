"""Peers beside us: other systems on the same workloads, the same machine, in the same run.

Each has a virtual environment of its own (``environments``) and a program (``programs``) that runs
there: a client that takes orders on its standard input, and worker processes. See docs/benchmarks.md.
"""
