-- The tables of a file outbox, format 1. `place` orders the items; a conversation has a row while it has items.
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS items (
  place INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  conversation TEXT NOT NULL,
  user TEXT,
  appended REAL NOT NULL,
  item TEXT NOT NULL,
  UNIQUE (tenant, id)
);
CREATE INDEX IF NOT EXISTS items_by_conversation ON items (tenant, conversation, place);
CREATE TABLE IF NOT EXISTS conversations (
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  due REAL NOT NULL,       -- when it may be claimed: at once, after a backoff, or when a claim has ended
  attempts INTEGER NOT NULL DEFAULT 0,
  token TEXT,              -- of the claim, NULL without one
  PRIMARY KEY (tenant, name)
);
CREATE INDEX IF NOT EXISTS conversations_by_due ON conversations (tenant, due);
CREATE TABLE IF NOT EXISTS set_aside (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  user TEXT,
  item TEXT NOT NULL,
  reason TEXT NOT NULL,
  at REAL NOT NULL,
  PRIMARY KEY (tenant, id)
);
PRAGMA user_version = 1;
COMMIT;
