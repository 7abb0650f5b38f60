CREATE TABLE peerlimit_auth_keys (
	id           text COLLATE "C" PRIMARY KEY, -- in order of bytes, whatever the database's language
	digest       bytea NOT NULL UNIQUE CHECK (length(digest) = 32), -- SHA-256; looked up by every verification
	display      text NOT NULL,
	project      text NOT NULL,
	name         text NOT NULL,
	scopes       text NOT NULL, -- JSON, '' where empty; so are the next two
	metadata     text NOT NULL,
	limits       text NOT NULL,
	disabled     boolean NOT NULL,
	created_at   timestamptz NOT NULL,
	updated_at   timestamptz NOT NULL,
	expires_at   timestamptz,
	last_used_at timestamptz,
	replaces     text NOT NULL,
	replaced_by  text NOT NULL,
	revision     bigint NOT NULL
) WITH (fillfactor = 85); -- last_used_at is in no index: with room on the page its updates touch none

-- Pages of one project's keys; pages of all are by the primary key.
CREATE INDEX peerlimit_auth_keys_project ON peerlimit_auth_keys (project, id);

CREATE TABLE peerlimit_auth_records (
	seq      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	at       timestamptz NOT NULL,
	action   text NOT NULL,
	actor    text NOT NULL,
	detail   text NOT NULL,
	key_id   text COLLATE "C" NOT NULL,
	digest   bytea NOT NULL,
	revision bigint -- NULL for a creation
);

-- What has changed since a revision; a record of a creation has none and is not in it.
CREATE UNIQUE INDEX peerlimit_auth_records_revision ON peerlimit_auth_records (revision) WHERE revision IS NOT NULL;
-- A key's records, the newest first.
CREATE INDEX peerlimit_auth_records_key ON peerlimit_auth_records (key_id, seq);

-- The latest revision. Raising it locks its one row until the commit, so that revisions appear in order: a sequence
-- would let a later one be seen before an earlier one is committed.
CREATE TABLE peerlimit_auth_revision (
	one      integer PRIMARY KEY CHECK (one = 1),
	revision bigint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO peerlimit_auth_revision (one, revision) VALUES (1, 0);
