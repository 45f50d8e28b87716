//! Raft's log on the node's write-ahead log.
//!
//! A thin binding: it encodes openraft's entries and votes and gives them to the group's part of
//! the log; the log's writer calls openraft's callbacks when the bytes are durable. An append
//! returns at once and is readable from then on, so that the same entries travel to the other
//! members while the local disk syncs.
//!
//! A read of entries that are still in memory returns at once. Entries that have left memory, which
//! a member or a state far behind still needs, are read where waiting for the disk blocks no other
//! task, and in bounded parts.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;

use bytes::Bytes;
use dkv_base::mutants::{Mutant, planted};
use dkv_base::platform::run_blocking;
use dkv_wire::codec::{decode, encode};
use futures::stream::{Stream, try_unfold};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::checkpointed::Checkpointed;
use super::codec::{decode_entry, encode_entry, invalid};
use super::entry_times::EntryTimes;
use super::{Entry, LogId, Types, Vote};
use dkv_wal::{GroupLog, bounds};

/// Maximum bytes of entries that one read for replication, or for the state, returns; a single
/// entry may be larger.
const READ_BYTES_MAX: u64 = 1024 * 1024;

/// The log of one group.
#[derive(Clone)]
pub(crate) struct LogStore {
    log: GroupLog,
    times: EntryTimes,
    checkpointed: Checkpointed,
}

impl LogStore {
    /// Returns the store over a log, which notes in `times` when entries are on disk, and purges no
    /// entry that is not `checkpointed`.
    pub(crate) fn new(log: GroupLog, times: EntryTimes, checkpointed: Checkpointed) -> Self {
        Self { log, times, checkpointed }
    }

    /// Gives one durable write to the log and waits until it is durable.
    async fn durably(
        &self,
        write: impl FnOnce(&GroupLog, dkv_wal::Done) -> io::Result<()>,
    ) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |result| {
            // The receiver is gone if Raft has stopped in the meantime.
            let _ = sender.send(result);
        });
        write(&self.log, done)?;
        receiver.await.unwrap_or_else(|_| Err(io::Error::other("the log has stopped")))
    }

    /// Returns the entries from `start` up to but excluding `end`, as far as they exist and their
    /// bytes together do not exceed `bytes_max`; but at least one, if there is one.
    async fn entries(&self, start: u64, end: u64, bytes_max: u64) -> io::Result<Vec<Entry>> {
        let reading = self.log.reading(start, end, bytes_max);
        let entries = if reading.is_in_memory() {
            reading.entries()?
        } else {
            run_blocking(move || reading.entries()).await??
        };
        entries.iter().map(|(_, entry)| decode_entry(entry).map_err(invalid)).collect()
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let state = self.log.state();
        let last_purged_log_id: Option<LogId> = match &state.purged {
            Some((_, log_id)) => Some(decode(log_id).map_err(invalid)?),
            None => None,
        };
        let last_log_id = match state.last_index {
            Some(last) => {
                let entries = self.entries(last, last.saturating_add(1), u64::MAX).await?;
                Some(entries.first().ok_or_else(|| gone(last))?.log_id)
            }
            None => last_purged_log_id,
        };
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        if planted(Mutant::ForgetVote) {
            return Ok(());
        }
        let vote = encode(vote);
        self.durably(|log, done| log.save_vote(vote, done)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.log.save_committed(encode(&committed))
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        match self.log.state().committed {
            Some(committed) => decode(&committed).map_err(invalid),
            None => Ok(None),
        }
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<(u64, Bytes)> =
            entries.into_iter().map(|entry| (entry.log_id.index, encode_entry(&entry))).collect();
        if planted(Mutant::AnswerBeforeSync) {
            callback.io_completed(Ok(()));
            return self.log.append_when_ready(entries, Box::new(|_| ())).await;
        }
        // Waits while the disk is far behind: a proposer must not outrun it for long.
        let times = self.times.clone();
        let range = entries.first().zip(entries.last()).map(|(first, last)| (first.0, last.0));
        let done = Box::new(move |result: io::Result<()>| {
            if let (Some((first, last)), Ok(())) = (range, &result) {
                times.synced(first, last, Instant::now());
            }
            callback.io_completed(result);
        });
        self.log.append_when_ready(entries, done).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        // Waits for the truncation: a checkpoint of the entries that replace these must not become
        // durable before it.
        let from = last.map_or(0, |last| last.index + 1);
        self.durably(|log, done| log.truncate_from(from, done)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        if !self.checkpointed.covers(upto.index) {
            return Err(io::Error::other(format!(
                "entry {} is to be purged, and no durable checkpoint covers it; this is a bug in dkv",
                upto.index
            )));
        }
        // Does not wait: entries that come back after a crash are in a checkpoint anyway.
        self.log.purge(upto.index, encode(&upto), Box::new(|_| ()))
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<R>(&mut self, range: R) -> io::Result<Vec<Entry>>
    where
        R: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (start, end) = bounds(&range);
        self.entries(start, end, u64::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.entries(start, end, READ_BYTES_MAX).await
    }

    async fn entries_stream<R>(&mut self, range: R) -> impl Stream<Item = io::Result<Entry>> + Send
    where
        R: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (start, end) = bounds(&range);
        let begin = (self.clone(), start, Vec::new().into_iter());
        try_unfold(begin, move |(log, mut next, mut read)| async move {
            if read.as_slice().is_empty() {
                let entries = log.entries(next, end, READ_BYTES_MAX).await?;
                // Entries may be missing only before the first and after the last.
                let first = entries.first().map(|entry| entry.log_id.index);
                if first.is_some_and(|first| first != next && next != start) {
                    return Err(gone(next));
                }
                next = entries.last().map_or(next, |entry| entry.log_id.index + 1);
                read = entries.into_iter();
            }
            Ok(read.next().map(|entry| (entry, (log, next, read))))
        })
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        match self.log.state().vote {
            Some(vote) => decode(&vote).map(Some).map_err(invalid),
            None => Ok(None),
        }
    }
}

fn gone(index: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("entry {index} of the log is gone"))
}

#[cfg(test)]
mod tests;
