"""The pure core: parse, evolve, decide, render. No I/O, no clock, no randomness."""
