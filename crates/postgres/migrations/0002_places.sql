-- Where the records of the feed lie in its order: the number of the transaction that wrote them, counted on from `base`.
-- Without a row in `feed` the ledger has none, and statuses are at place 0. An event has a place only if it waits for a
-- rail: all others are records once they are closed.
ALTER TABLE statuses ADD COLUMN written bigint NOT NULL DEFAULT 0;
ALTER TABLE events ADD COLUMN written bigint;

CREATE TABLE feed (
    only_one smallint PRIMARY KEY,
    base bigint NOT NULL
);
