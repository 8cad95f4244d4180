"""Sensors: subscriptions, sampling and mirrors, which outlive a connection."""
