"""The version of the library, for the library and its packaging."""

__version__ = "0.1.0"
