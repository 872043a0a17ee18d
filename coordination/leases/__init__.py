"""Ownership as a value: leases with fences, and general locks on top of them."""
