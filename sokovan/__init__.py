"""Sokovan: a session scheduler for shared machines."""

__version__ = "0.1.0"
