"""The reference backend: what outlives a call, behind an HTTP API, for one or many tenants.

It stands alone: it imports nothing of the library, the agents or their configuration, and they reach it over HTTP only.
Every row belongs to a tenant, and the tenant of a request comes from its token alone.
"""
