"""Measurements against targets and peers, in one run: `make bench`."""
