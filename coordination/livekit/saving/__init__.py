"""Saving calls to the backend, where one is configured. What was said in a call is known in one of two ways:

- `shared`: several agents serve it. The room's turn log is the truth, so whoever logs a turn saves it from there,
  through the outbox in Redis; a colleague saves what a lost agent left. Used by a coordinated session.
- `alone`: one agent serves it, and there is no Redis. The session's own history is the truth, the outbox is a file.
  Used by a session without coordination, and by any other that is to need no Redis (`agents/solo`).

Both end with one record of the call, which `coordination.persistence.summary` builds. `leftovers` is the worker's part
in either: it delivers what killed jobs have left, and ends records that nobody ends.
"""
