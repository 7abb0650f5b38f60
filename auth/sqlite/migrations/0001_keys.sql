CREATE TABLE auth_keys (
	id           TEXT PRIMARY KEY NOT NULL,
	digest       BLOB NOT NULL UNIQUE CHECK (length(digest) = 32), -- SHA-256; looked up by every verification
	display      TEXT NOT NULL,
	project      TEXT NOT NULL,
	name         TEXT NOT NULL,
	scopes       TEXT NOT NULL, -- JSON, '' where empty; so are the next two
	metadata     TEXT NOT NULL,
	limits       TEXT NOT NULL,
	disabled     INTEGER NOT NULL,
	created_at   INTEGER NOT NULL, -- microseconds since 1970, as all instants
	updated_at   INTEGER NOT NULL,
	expires_at   INTEGER,
	last_used_at INTEGER,
	replaces     TEXT NOT NULL,
	replaced_by  TEXT NOT NULL,
	revision     INTEGER NOT NULL
) STRICT;

-- Pages of one project's keys; pages of all are by the primary key.
CREATE INDEX auth_keys_project ON auth_keys (project, id);

CREATE TABLE auth_records (
	seq      INTEGER PRIMARY KEY AUTOINCREMENT,
	at       INTEGER NOT NULL,
	action   TEXT NOT NULL,
	actor    TEXT NOT NULL,
	detail   TEXT NOT NULL,
	key_id   TEXT NOT NULL,
	digest   BLOB NOT NULL,
	revision INTEGER -- NULL for a creation
) STRICT;

-- What has changed since a revision; a record of a creation has none and is not in it.
CREATE UNIQUE INDEX auth_records_revision ON auth_records (revision) WHERE revision IS NOT NULL;
-- A key's records, the newest first.
CREATE INDEX auth_records_key ON auth_records (key_id, seq);

-- The latest revision. One row, so that it can be read and raised in one place.
CREATE TABLE auth_revision (
	one      INTEGER PRIMARY KEY CHECK (one = 1),
	revision INTEGER NOT NULL
) STRICT;
INSERT INTO auth_revision (one, revision) VALUES (1, 0);
