//! The calls of a store of chains, each taken to all streams at once.
//!
//! What this module does not do: reading and appending in a stream ([`crate::shard`], [`crate::append`]).

use crate::error::{damaged, failed};
use crate::ledger::{decode_mark, encode_mark};
use crate::net::{Published, Stored};
use crate::store::{NatsChains, PAUSE, stream_name};
use bursar_engine::Totals;
use bursar_engine::core::commit::Appended;
use bursar_engine::core::{CustomerId, EventRef, EventStatus, Hash, Head, Record};
use bursar_engine::store::{ChainEntry, Chains, CustomerHead, Feed, ReadRange, SourceId, SourceMark, StoreError};
use bytes::Bytes;
use futures_util::future::try_join_all;
use std::collections::HashMap;
use std::time::Instant;

fn source_subject(prefix: &str, source: SourceId) -> String {
    format!("{prefix}.source.{}", Hash(source.0))
}

fn read_mark(stored: &Stored) -> Result<SourceMark, StoreError> {
    decode_mark(&stored.payload).map_err(|error| damaged(&stored.subject, stored.seq, error.0))
}

impl Chains for NatsChains {
    fn whole_batches(&self) -> bool {
        false
    }

    fn load(&self, customers: &[CustomerId], heads: &mut Vec<Option<Head>>) -> Result<(), StoreError> {
        let customers = customers.to_vec();
        let known = self.run(|inner| async move { inner.heads(&customers).await })?;
        heads.extend(known.into_iter().map(|known| (known.seq > 0).then_some(known.head)));
        Ok(())
    }

    fn append(&self, records: &[Record], results: &mut Vec<Appended>) -> Result<(), StoreError> {
        let mut places: HashMap<CustomerId, usize> = HashMap::new();
        let mut work: Vec<(CustomerId, Vec<(usize, Record)>)> = Vec::new();
        for (place, record) in records.iter().enumerate() {
            let customer = record.customer();
            let at = *places.entry(customer).or_insert_with(|| {
                work.push((customer, Vec::new()));
                work.len() - 1
            });
            work[at].1.push((place, record.clone()));
        }
        let mut became = self.write(|inner| async move {
            let until = inner.until();
            let groups = inner.by_shard(work.into_iter());
            let appended = groups.into_iter().map(|(shard, work)| shard.append(&inner, work, until));
            Ok(try_join_all(appended).await?.into_iter().flatten().collect::<Vec<_>>())
        })?;
        became.sort_unstable_by_key(|(place, _)| *place);
        results.extend(became.into_iter().map(|(_, result)| result));
        Ok(())
    }

    fn end_batch(&self, _time_ms: u64, mark: Option<&SourceMark>) -> Result<(), StoreError> {
        let Some(mark) = mark else { return self.inner.check_poison() };
        let subject = source_subject(&self.inner.prefix, mark.source);
        let payload = Bytes::from(encode_mark(mark));
        self.write(|inner| async move {
            let until = inner.until();
            loop {
                let (last, _) = inner.newest_of(&subject, until).await?;
                if last.as_ref().is_some_and(|last| last.payload == payload) {
                    return Ok(());
                }
                let expected = last.map_or(0, |last| last.seq);
                if let Published::At(_) = inner.net.publish(&subject, Some(expected), payload.clone()).await {
                    return Ok(());
                }
                if Instant::now() > until {
                    return Err(failed("keep a source's position", &subject, "no server takes it"));
                }
            }
        })
    }

    /// What was appended is durable already: no append returns before a majority has synced it.
    fn sync(&self) -> Result<(), StoreError> {
        self.inner.check_poison()
    }

    fn status(&self, events: &[EventRef], statuses: &mut Vec<Option<EventStatus>>) -> Result<(), StoreError> {
        let events = events.to_vec();
        let found = self.run(|inner| async move {
            let until = inner.until();
            let mut customers: Vec<CustomerId> = events.iter().map(|event| event.customer).collect();
            customers.sort_unstable();
            customers.dedup();
            let heads = inner.heads(&customers).await?;
            let mut found: Vec<Option<EventStatus>> = vec![None; events.len()];
            let mut long_ago: HashMap<CustomerId, Vec<usize>> = HashMap::new();
            for (place, event) in events.iter().enumerate() {
                let known = customers.binary_search(&event.customer).ok().and_then(|at| heads.get(at));
                match known.map(|known| known.status(event)) {
                    Some(Ok(status)) => found[place] = status,
                    Some(Err(())) => long_ago.entry(event.customer).or_default().push(place),
                    None => return Err(failed("load heads", &inner.prefix, "one is missing")),
                }
            }
            // What was closed long ago is read from the chain, at once for all of a customer.
            for (customer, places) in long_ago {
                let seqs = places.iter().map(|place| events[*place].seq);
                let (low, high) = (seqs.clone().min().unwrap_or(1), seqs.max().unwrap_or(1));
                let known = customers.binary_search(&customer).ok().and_then(|at| heads.get(at));
                let Some(known) = known else { continue };
                let range = (low, high, known.newest_seq());
                let entries = inner.shard_of(customer).entries(&inner, customer, range, known.seq, until).await?;
                for place in places {
                    let entry = entries.get((events[place].seq - low) as usize);
                    let entry = entry.filter(|entry| entry.linked.id() == events[place].id);
                    found[place] = entry.map(|entry| entry.status.clone());
                }
            }
            Ok(found)
        })?;
        statuses.extend(found);
        Ok(())
    }

    fn read(&self, customer: CustomerId, range: ReadRange, entries: &mut Vec<ChainEntry>) -> Result<(), StoreError> {
        let found = self.run(|inner| async move {
            let Some(known) = inner.heads(&[customer]).await?.pop() else { return Ok(Vec::new()) };
            let newest = known.newest_seq();
            let (mut low, mut high) = (range.from_seq.max(1), range.to_seq.min(newest));
            let limit = u64::try_from(range.limit).unwrap_or(u64::MAX);
            if range.newest_first {
                low = low.max(high.saturating_add(1).saturating_sub(limit));
            } else {
                high = high.min(low.saturating_add(limit).saturating_sub(1));
            }
            if low > high || limit == 0 {
                return Ok(Vec::new());
            }
            let shard = inner.shard_of(customer);
            shard.entries(&inner, customer, (low, high, newest), known.seq, inner.until()).await
        })?;
        if range.newest_first {
            entries.extend(found.into_iter().rev());
        } else {
            entries.extend(found);
        }
        Ok(())
    }

    fn open_customers(&self) -> Result<Vec<CustomerId>, StoreError> {
        let mut open = self.fold(Vec::new(), |open, customer, known| {
            if !known.head.open.is_empty() {
                open.push(customer);
            }
        })?;
        open.sort_unstable();
        Ok(open)
    }

    fn list(&self, after: Option<CustomerId>, limit: usize, heads: &mut Vec<CustomerHead>) -> Result<(), StoreError> {
        use std::ops::Bound;
        let found = self.run(|inner| async move {
            let until = inner.until();
            let bound = after.map_or(Bound::Unbounded, Bound::Excluded);
            let mut page = Vec::new();
            for shard in &inner.shards {
                let mut state = shard.fresh(&inner, until).await?;
                let customers = shard.customers(&inner, &mut state, until).await?;
                page.extend(customers.range((bound, Bound::Unbounded)).take(limit).copied());
            }
            page.sort_unstable();
            page.truncate(limit);
            let heads = inner.heads(&page).await?;
            let listed = page.into_iter().zip(heads).filter(|(_, known)| known.seq > 0);
            Ok(listed.map(|(customer, known)| CustomerHead { customer, head: known.head }).collect::<Vec<_>>())
        })?;
        heads.extend(found);
        Ok(())
    }

    fn source(&self, source: SourceId) -> Result<Option<SourceMark>, StoreError> {
        let subject = source_subject(&self.inner.prefix, source);
        let found = self.run(|inner| async move { Ok(inner.newest_of(&subject, inner.until()).await?.0) })?;
        let mark = found.as_ref().map(read_mark).transpose()?;
        Ok(mark.map(|mark| SourceMark { rejected_lines: Vec::new(), ..mark }))
    }

    fn sources(&self) -> Result<Vec<SourceMark>, StoreError> {
        let marks = self.run(|inner| async move {
            let until = inner.until();
            let filter = format!("{}.source.*", inner.prefix);
            let stream = stream_name(&inner.prefix, 0);
            let Some(first) = inner.shards.first() else { return Ok(Vec::new()) };
            let seq = first.fresh(&inner, until).await?.seq;
            let (subjects, _) = inner.subjects(&stream, &filter, seq, until).await?;
            let mut marks = Vec::new();
            for subject in subjects {
                marks.extend(inner.newest_of(&subject, until).await?.0.as_ref().map(read_mark).transpose()?);
            }
            Ok(marks)
        })?;
        Ok(marks.into_iter().map(|mark| SourceMark { rejected_lines: Vec::new(), ..mark }).collect())
    }

    fn rejected_lines(&self, source: SourceId) -> Result<Vec<(u64, u8)>, StoreError> {
        let subject = source_subject(&self.inner.prefix, source);
        self.run(|inner| async move {
            let until = inner.until();
            let (last, _) = inner.newest_of(&subject, until).await?;
            let Some(last) = last else { return Ok(Vec::new()) };
            let stream = stream_name(&inner.prefix, 0);
            let (mut lines, mut next) = (Vec::new(), 1);
            while next <= last.seq {
                let found = inner.net.from(&stream, next, Some(&subject), 256).await.unwrap_or_default();
                if found.is_empty() {
                    if Instant::now() > until {
                        return Err(failed("read a source's positions", &subject, "no server gives them"));
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                for stored in found.iter().filter(|stored| stored.seq <= last.seq) {
                    lines.extend(read_mark(stored)?.rejected_lines);
                    next = stored.seq + 1;
                }
            }
            Ok(lines)
        })
    }

    fn totals(&self) -> Result<Totals, StoreError> {
        self.fold(Totals::default(), |sums, _, known| sums.add(&known.totals))
    }

    fn feed(&self) -> Option<&dyn Feed> {
        self.inner.order.is_some().then_some(self)
    }

    fn last_time_ms(&self) -> Result<u64, StoreError> {
        self.fold(0, |newest: &mut u64, _, known| *newest = known.newest_time_ms().max(*newest))
    }
}
