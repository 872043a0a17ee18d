"""The routers, one for each kind of thing. Each query in them is bound to the tenant of the request."""
