//! Appending to the chains of one stream.
//!
//! ```text
//!  plan on the heads ──► publish, each at its subject's expected sequence ──► catch up to what was stored
//!          ▲                        │ refused, or no answer
//!          └────── barrier, catch up: stored after all, still possible, or to be planned anew
//! ```
//!
//! Only the expected sequence decides. A publish without an answer, or with a refusal, says nothing: the store makes a
//! barrier and looks. A message carries its writer and number, so that one that was stored after all is known for what it
//! is; one that was not is sent again as it was, which at the same expected sequence can be stored once at the most.
//!
//! What this module does not do: barriers, and following what others have written ([`crate::shard`]).

use crate::error::{failed, has_lost};
use crate::follow::{Draft, Job, Known};
use crate::net::{ANSWER_WITHIN, Outgoing, Published};
use crate::shard::{Landed, SUBJECTS_MAX, Shard, State};
use crate::store::Inner;
use bursar_engine::core::commit::Appended;
use bursar_engine::core::{CustomerId, EventRef, EventStatus, Record};
use bursar_engine::store::StoreError;
use futures_util::future::join_all;
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

impl Shard {
    /// Appends records; gives what became of each, by its place.
    pub(crate) async fn append(
        &self,
        inner: &Inner,
        work: Vec<(CustomerId, Vec<(usize, Record)>)>,
        until: Instant,
    ) -> Result<Vec<(usize, Appended)>, StoreError> {
        let mut state = self.state.lock().await;
        let state = &mut *state;
        let mut jobs: Vec<Job> = work
            .into_iter()
            .map(|(customer, records)| Job { customer, records, done: 0, failed: false, draft: None })
            .collect();
        let mut results = Vec::new();
        let mut statuses = HashMap::new();
        // Whether a barrier was made in this call: a record that is not taken is so by what is true, not by what was.
        let mut is_fresh = false;
        loop {
            let customers: Vec<CustomerId> = jobs.iter().map(|job| job.customer).collect();
            if !is_fresh && customers.iter().any(|customer| !state.heads.contains_key(customer)) {
                self.refresh(inner, state, &mut Landed::new(), until).await?;
                is_fresh = true;
            }
            self.bring(inner, state, &customers, until).await?;
            self.plan(inner, state, &mut jobs, &mut statuses, until).await?;
            if !is_fresh && jobs.iter().any(|job| job.draft.as_ref().is_some_and(|draft| !draft.is_plain())) {
                self.refresh(inner, state, &mut Landed::new(), until).await?;
                is_fresh = true;
                for job in &mut jobs {
                    job.draft = None;
                }
                continue;
            }
            is_fresh |= self.publish(inner, state, &mut jobs, &mut results, until).await?;
            jobs.retain(|job| !job.is_over());
            if jobs.is_empty() {
                return Ok(results);
            }
        }
    }

    /// Makes drafts for those who have none.
    async fn plan(
        &self,
        inner: &Inner,
        state: &State,
        jobs: &mut [Job],
        statuses: &mut HashMap<EventRef, Option<EventStatus>>,
        until: Instant,
    ) -> Result<(), StoreError> {
        for job in jobs {
            while job.draft.is_none() {
                let known = self.head(state, job.customer)?;
                let number = inner.next_number();
                match job.plan(known, statuses, inner.options.message_bytes_max, number) {
                    Ok(draft) => job.draft = Some(draft),
                    Err(ask) => {
                        let status = self.closed_status(inner, known.seq, &ask.0, until).await?;
                        statuses.insert(ask.0, status);
                    }
                }
            }
        }
        Ok(())
    }

    /// Publishes all drafts, and concludes those that are stored. Gives whether a barrier was made.
    async fn publish(
        &self,
        inner: &Inner,
        state: &mut State,
        jobs: &mut [Job],
        results: &mut Vec<(usize, Appended)>,
        until: Instant,
    ) -> Result<bool, StoreError> {
        let mut outgoing: Vec<(usize, Outgoing)> = Vec::new();
        for (index, job) in jobs.iter_mut().enumerate() {
            match &job.draft {
                Some(draft) if draft.records.is_empty() => {
                    let draft = job.draft.take().map(|draft| draft.results).unwrap_or_default();
                    job.conclude(&draft);
                    results.extend(draft);
                }
                Some(draft) => {
                    let payload = draft.message(job.customer, inner.writer).encode().into();
                    let subject = self.subject(inner, job.customer);
                    outgoing.push((index, Outgoing { subject, expected: draft.before_seq, payload }));
                }
                None => {}
            }
        }
        if outgoing.is_empty() {
            return Ok(false);
        }
        let chunks: Vec<&[(usize, Outgoing)]> =
            outgoing.chunks(inner.options.batch_messages_max.clamp(1, SUBJECTS_MAX)).collect();
        let published = join_all(chunks.iter().map(|chunk| self.publish_chunk(inner, chunk))).await;
        let mut own = BTreeMap::new();
        let mut pending = Landed::new();
        let mut refused = None;
        for (chunk, published) in chunks.iter().zip(published) {
            match published {
                Published::At(last) => {
                    self.note_seen(last);
                    let first = (last + 1).saturating_sub(chunk.len() as u64);
                    if first <= state.seq {
                        // Whoever took it does not have what is known to have been stored.
                        return Err(has_lost(&self.stream, state.seq, first));
                    }
                    for (seq, (index, _)) in (first..).zip(chunk.iter()) {
                        if let Some(draft) = jobs[*index].draft.take() {
                            own.insert(seq, Some(Self::conclude(&mut jobs[*index], draft, seq, results)));
                        }
                    }
                }
                Published::Refused(..) | Published::Unknown => {
                    let numbers = chunk.iter().filter_map(|(index, _)| Some((jobs[*index].draft.as_ref()?.number, 0)));
                    pending.extend(numbers);
                    refused = Some(published);
                }
            }
        }
        if let Some(to) = own.keys().last().copied() {
            self.catch_up(inner, state, to, own, &mut pending, until).await?;
        }
        let Some(refused) = refused else { return Ok(false) };
        self.refresh(inner, state, &mut pending, until).await?;
        let mut is_further = false;
        for job in jobs.iter_mut() {
            let Some(draft) = &job.draft else { continue };
            let landed = pending.get(&draft.number).copied().unwrap_or(0);
            let moved = state.heads.get(&job.customer).is_none_or(|known| known.seq != draft.before_seq);
            if landed > 0 {
                // It was stored after all; the head has followed it.
                is_further = true;
                if let Some(draft) = job.draft.take() {
                    Self::conclude(job, draft, landed, results);
                }
            } else if moved {
                is_further = true;
                job.draft = None;
            }
        }
        if !is_further || Instant::now() > until {
            // All is as it was, and is sent once more as it was.
            self.pause_or(until, || {
                let why = match &refused {
                    Published::Refused(code, text) => format!("{text} ({code})"),
                    Published::Unknown | Published::At(_) => "no answer".to_owned(),
                };
                failed("append to a stream", &self.stream, why)
            })
            .await?;
        }
        Ok(true)
    }

    fn conclude(
        job: &mut Job,
        draft: Draft,
        seq: u64,
        results: &mut Vec<(usize, Appended)>,
    ) -> (CustomerId, Known, u64) {
        let before_seq = draft.before_seq;
        let (known, became) = draft.stored(seq);
        job.conclude(&became);
        results.extend(became);
        (job.customer, known, before_seq)
    }

    async fn publish_chunk(&self, inner: &Inner, chunk: &[(usize, Outgoing)]) -> Published {
        let messages: Vec<Outgoing> = chunk.iter().map(|(_, message)| message.clone()).collect();
        let batch = format!("{:x}-{:x}", inner.writer, inner.next_number());
        let patience = ANSWER_WITHIN * 2;
        tokio::time::timeout(patience, inner.net.publish_batch(&batch, &messages)).await.unwrap_or(Published::Unknown)
    }
}
