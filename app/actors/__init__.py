"""The Dramatiq actors: ``advance`` on the orchestrator's queue, one per tool on the pools' queues."""
