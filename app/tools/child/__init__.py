"""User code in child processes: a fork server per worker process, and one forked child per step.

``run`` is the worker's side of one child, ``launcher`` owns the fork server, ``zygote`` is the fork
server itself, ``isolate`` and ``program`` (with ``names`` and ``encode``) are what happens in the
child. The last four import nothing but the standard library: they start in a bare interpreter.
"""
