-- Puts what is there in an order that keeps that of each chain: a thousand events at each place.
LOCK TABLE events, statuses IN ACCESS EXCLUSIVE MODE;
SET LOCAL enable_seqscan = on;
SET LOCAL enable_hashjoin = on;
SET LOCAL enable_mergejoin = on;

CREATE TEMPORARY TABLE places ON COMMIT DROP AS
SELECT customer, seq, rail IS NOT NULL AS waited, 1 + (row_number() OVER (ORDER BY customer, seq) - 1) / 1000 AS place
FROM events;
UPDATE statuses s SET written = p.place FROM places p WHERE p.customer = s.customer AND p.seq = s.seq;
UPDATE events e SET written = p.place FROM places p WHERE p.waited AND p.customer = e.customer AND p.seq = e.seq;

-- An engine that knows nothing of places cannot write from here on: neither what is closed, nor what waits for a rail,
-- which is then not asked.
ALTER TABLE statuses ALTER COLUMN written DROP DEFAULT;
ALTER TABLE events ADD CONSTRAINT events_placed CHECK (rail IS NULL OR written IS NOT NULL);
CREATE INDEX statuses_written ON statuses (written);
CREATE INDEX events_written ON events (written) WHERE rail IS NOT NULL;

-- All that comes later lies behind.
UPDATE feed SET base = greatest(0, coalesce((SELECT max(place) FROM places), 0) - pg_current_xact_id()::text::bigint);
