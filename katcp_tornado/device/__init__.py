"""Devices by name: requests and sensors as attributes."""

from .device import Device

__all__ = ["Device"]
