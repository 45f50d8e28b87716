//! The writer of a chain: adds chunks, each after the one before.

use dkv_api::KeyspaceSettings;
use uuid::Uuid;

use super::chain::{Chain, Link};
use super::chunk::{CHUNK_BYTES, Content, CutMark, Hash, Header, seal};
use super::destination::Destination;
use super::error::BackupError;
use super::record::Record;

/// Writes the chain of a keyspace in a backup.
pub(crate) struct Writer {
    destination: Destination,
    backup: String,
    network: Uuid,
    keyspace: String,
    number: u64,
    before: Hash,
    /// Totals of this process, for those who watch it.
    pub(crate) written: Written,
    /// The chunks of the chain so far, if they are to be summed up at its end.
    pub(crate) chain: Option<Chain>,
}

/// Totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) records: u64,
    pub(crate) stored_bytes: u64,
}

/// Returns the name of a chunk.
pub(crate) fn chunk_name(backup: &str, keyspace: &str, number: u64) -> String {
    format!("{backup}/{keyspace}/{number:010}")
}

impl Writer {
    /// Goes on after the chunks of a chain.
    pub(crate) fn new(
        destination: Destination,
        backup: &str,
        network: Uuid,
        keyspace: &str,
        chain: &Chain,
    ) -> Self {
        let last = chain.last();
        Self {
            destination,
            backup: backup.to_owned(),
            network,
            keyspace: keyspace.to_owned(),
            number: last.map_or(0, |last| last.header.number),
            before: last.map_or([0; 32], |last| last.hash),
            written: Written::default(),
            chain: None,
        }
    }

    /// Returns the number of the last chunk.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Begins a run.
    ///
    /// # Errors
    /// The destination takes no more.
    pub(crate) async fn begin(
        &mut self,
        settings: KeyspaceSettings,
        content: impl FnOnce(KeyspaceSettings) -> Content,
    ) -> Result<(), BackupError> {
        self.append(content(settings), Vec::new()).await
    }

    /// Adds a chunk.
    ///
    /// # Errors
    /// The destination takes no more, or another process has written the chunk.
    pub(crate) async fn append(
        &mut self,
        content: Content,
        records: Vec<Record>,
    ) -> Result<(), BackupError> {
        let header = Header {
            backup: self.backup.clone(),
            network: self.network,
            keyspace: self.keyspace.clone(),
            number: self.number + 1,
            before: self.before,
            content,
            records: 0,
            data_bytes: 0,
            body_bytes: 0,
        };
        let name = chunk_name(&self.backup, &self.keyspace, self.number + 1);
        let failed = |why: String| BackupError::Write { place: self.destination.place(&name), why };
        let sealing = tokio::task::spawn_blocking(move || seal(header, &records));
        let sealed = sealing.await.map_err(|error| failed(error.to_string()))?;
        let (header, bytes, hash) = sealed.map_err(|error| failed(error.to_string()))?;
        let stored_bytes = bytes.len() as u64;
        self.destination.write(&name, bytes).await?;
        self.number += 1;
        self.before = hash;
        self.written.records += header.records;
        self.written.stored_bytes += stored_bytes;
        if let Some(chain) = &mut self.chain {
            let place = self.destination.place(&name);
            let pushed = chain.push(Link { header, hash, stored_bytes });
            pushed.map_err(|error| BackupError::damaged(&place, error))?;
        }
        Ok(())
    }

    /// Adds changes, in as many chunks as they take; the last one completes a cut, if there is one.
    ///
    /// # Errors
    /// As for [`append`](Self::append).
    pub(crate) async fn changes(
        &mut self,
        position: String,
        records: Vec<Record>,
        before: String,
        cut: Option<CutMark>,
    ) -> Result<(), BackupError> {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        for record in records {
            bytes += record.bytes() as usize;
            chunk.push(record);
            if bytes >= CHUNK_BYTES {
                // A writer that goes on after this chunk alone begins before all of them.
                let content = Content::Changes { position: before.clone(), cut: None };
                self.append(content, std::mem::take(&mut chunk)).await?;
                bytes = 0;
            }
        }
        self.append(Content::Changes { position, cut }, chunk).await
    }
}
