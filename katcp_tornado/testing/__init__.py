"""What tests of KATCP clients need."""

from .loop import VirtualTimeLoop

__all__ = ["VirtualTimeLoop"]
