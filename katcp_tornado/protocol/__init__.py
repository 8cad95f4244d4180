"""One KATCP conversation: bytes in, bytes out. No I/O, no clock, no event loop."""
