"""Background runs for Django that everyone who may can watch live."""

__version__ = "0.1.0"
