//! The books: the part of the registry that the control group keeps once there is one.
//!
//! Until it is known that there is one, the registry decides on tokens and holders alone, and its
//! file is the only record of them. From then on, a change of them counts once the control group
//! has it (see [`crate::books`]), and what is here is a copy: it serves what may be late, above all
//! the renewal of certificates while the control group has no majority.
//!
//! When a holder was last seen, and when a renewed certificate ends, is not worth an entry in the
//! control group's log. Each server keeps its own knowledge of that beside the records.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use dkv_base::id::HolderId;
use dkv_wire::codec;
use dkv_wire::message::{BookKey, BooksVersion, Enlistment};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::holders::HolderRecord;
use super::{Confirmed, Effects, Registry};

/// First byte of a record: the version of its form.
const RECORD_VERSION: u8 = 2;

/// Changes of records: `None` removes one.
pub type RecordChanges = Vec<(BookKey, Option<Bytes>)>;

/// All books, as the control group has them.
#[derive(Clone, Debug, Default)]
pub struct BooksCopy {
    /// Their version.
    pub version: BooksVersion,
    /// The registration servers.
    pub servers: Vec<(HolderId, SocketAddr)>,
    /// The records.
    pub records: Vec<(BookKey, Bytes)>,
}

/// What a registry knows of the books beside their records.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BooksState {
    /// The id of this server; `None` for the founding one, whose id is that of the network.
    server: Option<HolderId>,
    /// The version of this copy; `None` if it is no copy.
    version: Option<BooksVersion>,
    /// The registration servers.
    servers: BTreeMap<HolderId, SocketAddr>,
}

/// Why the records of the control group cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A newer server wrote a record.
    #[error(
        "the books have a record of form {0}, and this dkv-server reads form {RECORD_VERSION}; \
         use the version that wrote it or a newer one"
    )]
    Newer(u8),
    /// A record is malformed.
    #[error("the books have a malformed record of {0:?}")]
    Malformed(BookKey),
}

impl Registry {
    /// Whether the control group decides on changes of the books: a coordinator has reported, a
    /// node has registered that knows of a control group, or the operator has named a voter of it.
    pub fn is_kept_by_control_group(&self) -> bool {
        self.coordinator.is_some() || self.has_begun || !self.voters.is_empty()
    }

    /// Returns the id of this server.
    pub fn server(&self) -> HolderId {
        self.books.server.unwrap_or(HolderId(self.network.0))
    }

    /// Returns what a new server needs, with the authority's key; `None` until the control group
    /// keeps the books.
    pub fn enlistment(&self, authority_key: Bytes) -> Option<Enlistment> {
        let (confirmed, view) = (self.coordinator?, self.view.clone()?);
        self.books.version?;
        Some(Enlistment {
            authority_key,
            view,
            bootstrap: self.bootstrap,
            coordinator: (confirmed.node, confirmed.term),
            voters: self.voters.iter().copied().collect(),
            voters_index: self.voters_index,
        })
    }

    /// Creates the registry of a new server in a network that exists. It has the nodes and the
    /// deny list as last reported, and no books until it has read them from the control group.
    pub fn enlisted(server: HolderId, enlistment: &Enlistment, now_ms: u64) -> Self {
        let Enlistment { view, bootstrap, coordinator, voters, voters_index, .. } = enlistment;
        let mut registry = Self::new(view.network, view.settings.clone(), now_ms);
        registry.bootstrap = *bootstrap;
        let (node, term) = *coordinator;
        registry.coordinator = Some(Confirmed { node, term, at_ms: now_ms });
        registry.voters = voters.iter().copied().collect();
        registry.voters_index = *voters_index;
        registry.deny(&view.denied);
        registry.apply_view(view);
        registry.books.server = Some(server);
        registry
    }

    /// Whether this is the server that founded the network.
    pub fn is_founding_server(&self) -> bool {
        self.books.server.is_none()
    }

    /// Whether this server was removed from the network.
    pub fn is_removed(&self) -> bool {
        self.denied.contains(&self.server())
    }

    /// Records that a voter of the control group refuses this server, because it was removed. The
    /// coordinator does not report to it any more.
    pub fn handle_removed(&mut self) -> ((), Effects) {
        let deny = self.denied.insert(self.server());
        ((), Effects { save: deny, deny })
    }

    /// Whether a holder was admitted as a registration server and not removed.
    pub fn is_server(&self, holder: HolderId) -> bool {
        let record = self.holders.get(&holder);
        !self.denied.contains(&holder) && record.is_some_and(HolderRecord::is_server)
    }

    /// Returns the version of the books that this is a copy of; `None` if it is no copy yet.
    pub fn books_version(&self) -> Option<BooksVersion> {
        self.books.version
    }

    /// Whether this server may hand its books over: it has founded the network, or has had them
    /// from the control group. A new one knows nothing.
    pub fn may_hand_over(&self) -> bool {
        self.is_founding_server() || self.books.version.is_some()
    }

    /// Returns the registration servers that were not removed, as the books have them.
    pub fn servers(&self) -> impl Iterator<Item = (HolderId, SocketAddr)> {
        let servers = self.books.servers.iter().map(|(&id, &address)| (id, address));
        servers.filter(|(id, _)| !self.denied.contains(id))
    }

    /// Returns the address of a registration server, as the books have it.
    pub fn server_address(&self, server: HolderId) -> Option<SocketAddr> {
        self.books.servers.get(&server).copied()
    }

    /// Returns all records, to hand them over to the control group.
    pub fn all_records(&self) -> RecordChanges {
        self.changed_records(&Self::new(self.network, self.settings.clone(), 0))
    }

    /// Returns the records that differ from those of `before`. A sighting alone is no difference.
    pub fn changed_records(&self, before: &Self) -> RecordChanges {
        let mut changes = Vec::new();
        for (id, record) in &self.tokens {
            let record = encode(record);
            if before.tokens.get(id).map(encode).as_ref() != Some(&record) {
                changes.push((BookKey::Token(*id), Some(record)));
            }
        }
        for (id, record) in &self.holders {
            if !before.holders.get(id).is_some_and(|known| known.is_same_but_seen(record)) {
                changes.push((BookKey::Holder(*id), Some(encode(record))));
            }
        }
        let gone_tokens = before.tokens.keys().filter(|id| !self.tokens.contains_key(id));
        changes.extend(gone_tokens.map(|id| (BookKey::Token(*id), None)));
        let gone_holders = before.holders.keys().filter(|id| !self.holders.contains_key(id));
        changes.extend(gone_holders.map(|id| (BookKey::Holder(*id), None)));
        changes
    }

    /// Applies changes that the control group has accepted, the last of which made `version`.
    ///
    /// # Errors
    /// See [`RecordError`]; nothing has changed then.
    pub fn apply_changes(
        &mut self,
        changes: &RecordChanges,
        servers: &[(HolderId, Option<SocketAddr>)],
        version: BooksVersion,
    ) -> (Result<(), RecordError>, Effects) {
        let mut next = self.clone();
        for (key, record) in changes {
            if let Err(error) = next.set_record(*key, record.as_deref()) {
                return (Err(error), Effects::NONE);
            }
        }
        for (server, address) in servers {
            match address {
                Some(address) => next.books.servers.insert(*server, *address),
                None => next.books.servers.remove(server),
            };
        }
        next.books.version = Some(version);
        *self = next;
        (Ok(()), Effects::SAVE)
    }

    /// Replaces this copy of the books by that of the control group. What this server alone has
    /// seen of holders stays.
    ///
    /// An older one is that of a control group that has lost its latest entries: a coordinator that
    /// was deposed does not answer.
    ///
    /// # Errors
    /// See [`RecordError`]; nothing has changed then.
    pub fn adopt_books(&mut self, copy: &BooksCopy) -> (Result<(), RecordError>, Effects) {
        if self.books.version == Some(copy.version) {
            return (Ok(()), Effects::NONE);
        }
        let mut next = self.clone();
        next.tokens.clear();
        let known = std::mem::take(&mut next.holders);
        for (key, record) in &copy.records {
            if let Err(error) = next.set_record(*key, Some(record)) {
                return (Err(error), Effects::NONE);
            }
        }
        for (id, record) in &mut next.holders {
            if let Some(known) = known.get(id) {
                record.keep_newer_times(known);
            }
        }
        next.books.servers = copy.servers.iter().copied().collect();
        next.books.version = Some(copy.version);
        *self = next;
        (Ok(()), Effects::SAVE)
    }

    fn set_record(&mut self, key: BookKey, record: Option<&[u8]>) -> Result<(), RecordError> {
        match (key, record) {
            (BookKey::Token(id), Some(record)) => {
                self.tokens.insert(id, decode(key, record)?);
            }
            (BookKey::Token(id), None) => {
                self.tokens.remove(&id);
            }
            (BookKey::Holder(id), Some(record)) => {
                let mut record: HolderRecord = decode(key, record)?;
                if let Some(known) = self.holders.get(&id) {
                    record.keep_newer_times(known);
                }
                self.holders.insert(id, record);
            }
            (BookKey::Holder(id), None) => {
                self.holders.remove(&id);
            }
        }
        Ok(())
    }
}

fn encode<T: Serialize>(record: &T) -> Bytes {
    codec::encode(&(RECORD_VERSION, record))
}

fn decode<T: DeserializeOwned>(key: BookKey, encoded: &[u8]) -> Result<T, RecordError> {
    match encoded.first() {
        Some(&version) if version > RECORD_VERSION => Err(RecordError::Newer(version)),
        Some(_) => codec::decode(encoded)
            .map(|(_, record): (u8, T)| record)
            .map_err(|_| RecordError::Malformed(key)),
        None => Err(RecordError::Malformed(key)),
    }
}

#[cfg(test)]
mod tests;
