"""hal0 keeps the slots of a local model server in order."""

__version__ = "0.1.0"
