"""The connection to one device: state machine, attempts, requests, callbacks."""
