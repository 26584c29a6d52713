"""The control plane over HTTP: routes only translate, the use cases are in ``services``."""
