"""The floor: the hops of a step without an engine, on the same Postgres and NATS, in as many processes.

pointer from JetStream → claim over HTTP, one row → fork of a child → report over HTTP, one row
committed to disk → wake → read the new rows, write one per successor, commit → pointers.
Nothing is parsed, rendered, fenced or folded beyond a counter, and nothing is batched except what
one wake finds.
"""
