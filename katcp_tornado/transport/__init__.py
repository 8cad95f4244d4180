"""Sockets and timers: name look-up, connecting, streams, TLS."""
