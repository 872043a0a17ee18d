"""Scenarios in which something is done to the system while callers talk: a worker dies, all restart, Redis is gone."""
