-- Chains and statuses are keyed by customer first, the transactions table by transaction id first; no unique index
-- lacks that key. Events, statuses and touches are only ever inserted.

CREATE TABLE ledger (
    only_one smallint PRIMARY KEY,
    ledger uuid NOT NULL,
    locked_policy smallint NOT NULL,
    disputable_policy smallint NOT NULL,
    digest bytea NOT NULL
);

CREATE TABLE currencies (
    currency smallint PRIMARY KEY,
    code text NOT NULL,
    decimals smallint NOT NULL
);

-- Amounts are counts of the currency's smallest step. An id below 2^64 is a number: its upper 64 bits are zero.
CREATE TABLE events (
    customer uuid NOT NULL,
    id uuid NOT NULL,
    transaction uuid,
    seq bigint NOT NULL,
    time_ms bigint NOT NULL,
    amount bigint NOT NULL,
    available bigint NOT NULL,
    held bigint NOT NULL,
    kind smallint NOT NULL,
    currency smallint NOT NULL,
    rail smallint,
    request_key uuid,
    withdrawal boolean NOT NULL,
    locked boolean NOT NULL,
    hash bytea NOT NULL,
    other_currencies smallint[],
    other_available bigint[],
    other_held bigint[],
    PRIMARY KEY (customer, seq)
);

-- One entry for each customer: to go through the customers without their histories.
CREATE INDEX customers ON events (customer) WHERE seq = 1;

-- How an event was closed: 1 done, 2 aborted, 3 done by an operator. The first row for an event wins. Behind an event
-- that is not simply done, the chain's link, the newest event in effect (0: none) and the time are kept, so that the
-- head of a chain is found without reading back.
CREATE TABLE statuses (
    customer uuid NOT NULL,
    seq bigint NOT NULL,
    status smallint NOT NULL,
    reason smallint,
    said text,
    link bytea,
    done_seq bigint,
    time_ms bigint,
    PRIMARY KEY (customer, seq)
);

-- The newest proposed state of each transaction with its event, and the last approved one.
CREATE TABLE transactions (
    id uuid PRIMARY KEY,
    customer uuid NOT NULL,
    event_id uuid NOT NULL,
    seq bigint NOT NULL,
    amount bigint NOT NULL,
    currency smallint NOT NULL,
    status smallint NOT NULL,
    withdrawal boolean NOT NULL,
    approved_withdrawal boolean,
    approved_status smallint,
    approved_currency smallint,
    approved_amount bigint,
    approved_customer uuid
);

-- The same for keys of requests: each names the event that has it. A space of its own, since anybody may choose the
-- digits of a key for a transaction.
CREATE TABLE request_keys (LIKE transactions, PRIMARY KEY (id));

CREATE INDEX disputed ON transactions (customer) WHERE status = 2 OR approved_status = 2;

-- Events that touched a transaction before the one that its entry names.
CREATE TABLE touches (
    transaction uuid NOT NULL,
    event_id uuid NOT NULL,
    customer uuid NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (transaction, event_id)
);

-- Customers whose events may be open: a row comes with the events of a batch, and goes once they are closed.
CREATE TABLE under_way (
    batch uuid PRIMARY KEY,
    customers uuid[] NOT NULL
);

-- What each engine has counted, in slots so that engines do not wait for each other.
CREATE TABLE counts (
    slot smallint PRIMARY KEY,
    last_time_ms bigint NOT NULL,
    customer_count bigint NOT NULL
);

CREATE TABLE sums (
    slot smallint NOT NULL,
    currency smallint NOT NULL,
    kind smallint NOT NULL,
    withdrawal boolean NOT NULL,
    event_count bigint NOT NULL,
    amount numeric NOT NULL,
    PRIMARY KEY (slot, currency, kind, withdrawal)
);

CREATE TABLE sources (
    source bytea PRIMARY KEY,
    end_offset bigint NOT NULL,
    line_count bigint NOT NULL,
    finished boolean NOT NULL,
    applied bigint NOT NULL,
    already_applied bigint NOT NULL,
    rejected bigint NOT NULL,
    unreadable bigint NOT NULL
);

CREATE TABLE rejected_lines (
    source bytea NOT NULL,
    line bigint NOT NULL,
    rejection smallint NOT NULL,
    PRIMARY KEY (source, line)
);

-- Names for codes, for the views and for people.
CREATE TABLE kinds (kind smallint PRIMARY KEY, name text NOT NULL);
INSERT INTO kinds VALUES
    (1, 'deposit'), (2, 'withdrawal'), (3, 'dispute'), (4, 'resolve'), (5, 'chargeback'), (6, 'unlock');

-- Each customer's accounts, by the newest event in effect. Amounts are exact and have their currency's decimals.
CREATE VIEW balances AS
SELECT
    e.customer,
    {text:e.customer} AS customer_id,
    c.code AS currency,
    a.available * ('1e-' || c.decimals)::numeric AS available,
    a.held * ('1e-' || c.decimals)::numeric AS held,
    (a.available + a.held) * ('1e-' || c.decimals)::numeric AS total,
    e.locked,
    e.seq,
    timestamptz 'epoch' + e.time_ms * interval '1 millisecond' AS changed_at
FROM events f
JOIN events e ON e.customer = f.customer
    AND e.seq = (SELECT max(s.seq) FROM statuses s WHERE s.customer = f.customer AND s.status <> 2)
JOIN currencies c ON c.currency = e.currency OR c.currency = ANY (e.other_currencies)
CROSS JOIN LATERAL (SELECT
    (CASE WHEN c.currency = e.currency THEN e.available
        ELSE e.other_available[array_position(e.other_currencies, c.currency)] END)::numeric AS available,
    (CASE WHEN c.currency = e.currency THEN e.held
        ELSE e.other_held[array_position(e.other_currencies, c.currency)] END)::numeric AS held
) a
WHERE f.seq = 1;

-- Every event of every chain, with how it stands; `available`, `held` and `total` are in effect once it is done.
CREATE VIEW statement AS
SELECT
    e.customer,
    {text:e.customer} AS customer_id,
    e.seq,
    timestamptz 'epoch' + e.time_ms * interval '1 millisecond' AS decided_at,
    k.name AS kind,
    e.transaction,
    {text:e.transaction} AS transaction_id,
    c.code AS currency,
    e.amount * ('1e-' || c.decimals)::numeric AS amount,
    e.available * ('1e-' || c.decimals)::numeric AS available,
    e.held * ('1e-' || c.decimals)::numeric AS held,
    (e.available::numeric + e.held) * ('1e-' || c.decimals)::numeric AS total,
    e.locked,
    CASE s.status WHEN 1 THEN 'done' WHEN 2 THEN 'aborted' WHEN 3 THEN 'done' ELSE 'started' END AS status,
    s.said AS reason,
    coalesce(s.status = 3 OR s.reason = 3, false) AS by_hand,
    e.id AS event_id
FROM events e
JOIN kinds k ON k.kind = e.kind
JOIN currencies c ON c.currency = e.currency
LEFT JOIN statuses s ON s.customer = e.customer AND s.seq = e.seq;

-- Transactions whose state in effect is `disputed`. Right where the chains are in this database too.
CREATE VIEW open_disputes AS
SELECT
    t.customer,
    {text:t.customer} AS customer_id,
    t.id AS transaction,
    {text:t.id} AS transaction_id,
    CASE WHEN t.withdrawal THEN 'withdrawal' ELSE 'deposit' END AS kind,
    c.code AS currency,
    t.amount * ('1e-' || c.decimals)::numeric AS amount,
    t.seq AS event_seq,
    timestamptz 'epoch' + e.time_ms * interval '1 millisecond' AS disputed_at
FROM transactions t
JOIN currencies c ON c.currency = t.currency
LEFT JOIN events e ON e.customer = t.customer AND e.seq = t.seq AND e.id = t.event_id
LEFT JOIN statuses s ON s.customer = e.customer AND s.seq = e.seq
WHERE (t.status = 2 OR t.approved_status = 2)
    AND CASE WHEN s.status <> 2 THEN t.status ELSE t.approved_status END = 2;
