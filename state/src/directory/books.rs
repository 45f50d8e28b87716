//! The books of the network in the directory: join tokens, the holders that they admitted, and the
//! registration servers.
//!
//! Registration servers decide what the records say; the log of the control group decides the
//! order. A change counts only if it was decided on the current version, so that two servers never
//! decide on the same use of a token. The founding server keeps the books alone until the first
//! control group exists, and then hands them over in changes of its own, the last of which
//! completes them.
//!
//! Deliberately missing: any knowledge of what a record says.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use dkv_base::id::HolderId;
use dkv_wire::limits;
use dkv_wire::message::{BookKey, BooksChange, BooksPage, BooksVersion};
use dkv_wire::network::ServerInfo;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use super::{Contents, Directory};

/// Ids of changes that the books remember, so that a server finds its own after a lost answer.
const RECENT_MAX: usize = 64;
/// What an offline recovery adds to the number of the version. It may have lost the latest changes,
/// and no server's copy may be newer than what is left.
const RECOVERY_LEAP: u64 = 1 << 20;

/// The books at one version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Books {
    /// The number of the version.
    version: u64,
    complete: bool,
    /// The ids of the latest changes, the last of which made this version. Nil stands for an
    /// offline recovery.
    recent: VecDeque<Uuid>,
    servers: BTreeMap<HolderId, SocketAddr>,
    records: BTreeMap<BookKey, Bytes>,
}

impl Books {
    fn version(&self) -> BooksVersion {
        let change = self.recent.back().copied().unwrap_or_default();
        BooksVersion { number: self.version, change }
    }

    fn remember(&mut self, change: Uuid) {
        self.recent.push_back(change);
        while self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
    }
}

/// The books, which the copies of a directory share until one changes them: most changes of a
/// directory leave them alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SharedBooks(Arc<Books>);

impl Serialize for SharedBooks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SharedBooks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Arc::new(Books::deserialize(deserializer)?)))
    }
}

impl Directory {
    /// Returns a page of the books with the records after a key. It has no records if the asker
    /// knows this version already.
    pub fn books_page(&self, after: Option<BookKey>, known: Option<BooksVersion>) -> BooksPage {
        let books = &*self.contents.books.0;
        let servers = self.servers().map(|server| (server.id, server.address)).collect();
        let mut page = BooksPage {
            version: books.version(),
            complete: books.complete,
            recent: books.recent.iter().copied().collect(),
            servers,
            ..BooksPage::default()
        };
        if known == Some(page.version) {
            return page;
        }
        let mut bytes = 0;
        let is_after = |key: &BookKey| after.is_none_or(|after| *key > after);
        for (key, record) in books.records.iter().filter(|(key, _)| is_after(key)) {
            if bytes >= limits::BOOKS_PAGE_BYTES {
                page.more = true;
                break;
            }
            bytes += size_of::<BookKey>() + record.len();
            page.records.push((*key, record.clone()));
        }
        page
    }

    /// Returns the registration servers that were not removed.
    pub fn servers(&self) -> impl Iterator<Item = ServerInfo> {
        let servers = self.contents.books.0.servers.iter();
        servers
            .filter(|(id, _)| !self.is_denied(**id))
            .map(|(&id, &address)| ServerInfo { id, address })
    }
}

impl Contents {
    /// Whether the holder is a registration server, and the directory names no other one. The
    /// founding server, whose id is that of the network, may list no address.
    pub(super) fn is_only_server(&self, holder: HolderId) -> bool {
        let mut listed = self.books.0.servers.keys().filter(|id| !self.denied.contains(id));
        let founds = self.network.as_ref().is_some_and(|(network, _)| network.0 == holder.0);
        (founds || self.books.0.servers.contains_key(&holder)) && listed.all(|id| *id == holder)
    }

    /// Changes the books, as a server has decided. A repetition of a recent change has no effect.
    pub(super) fn change_books(
        &mut self,
        author: HolderId,
        change: &BooksChange,
    ) -> Result<(), String> {
        let books = &self.books.0;
        if books.recent.contains(&change.id) {
            return Ok(());
        }
        if self.denied.contains(&author) {
            return Err(removed(author));
        }
        if books.version() != change.at {
            return Err(format!(
                "the books are at version {}, made by another change than that of version {}",
                books.version, change.at.number
            ));
        }
        if books.complete && !change.complete {
            return Err("the books are complete".into());
        }
        check_size(change)?;
        let mut next = Books::clone(books);
        for (key, record) in &change.records {
            match record {
                Some(record) => next.records.insert(*key, record.clone()),
                None => next.records.remove(key),
            };
        }
        for (server, address) in &change.servers {
            match address {
                Some(_) if self.denied.contains(server) => {
                    return Err(removed(*server));
                }
                Some(address) => next.servers.insert(*server, *address),
                None => next.servers.remove(server),
            };
        }
        next.servers.retain(|server, _| !self.denied.contains(server));
        if next.records.len() > limits::BOOK_RECORDS_MAX {
            return Err(format!("the books have {} records already", books.records.len()));
        }
        if next.servers.len() > limits::SERVERS_MAX {
            return Err(format!(
                "the network has {} registration servers already; remove one that is gone",
                books.servers.len()
            ));
        }
        next.version += 1;
        next.complete = change.complete;
        next.remember(change.id);
        self.books = SharedBooks(Arc::new(next));
        Ok(())
    }

    /// Makes a version of the books that is newer than every server's copy, lost changes included.
    /// A repetition has no effect.
    pub(super) fn recover_books(&mut self, recovery: Uuid) {
        let books = &self.books.0;
        if books.version == 0 || books.recent.contains(&recovery) {
            return;
        }
        let mut next = Books::clone(books);
        next.version = next.version.saturating_add(RECOVERY_LEAP);
        next.remember(recovery);
        self.books = SharedBooks(Arc::new(next));
    }
}

fn removed(server: HolderId) -> String {
    format!("the server {} was removed", server.short())
}

fn check_size(change: &BooksChange) -> Result<(), String> {
    let records = change.records.len();
    if records > limits::BOOKS_CHANGE_RECORDS_MAX || change.servers.len() > limits::SERVERS_MAX {
        return Err(format!("a change of {records} records of the books is too large"));
    }
    let is_long = |record: &&Bytes| record.len() > limits::BOOK_RECORD_BYTES_MAX;
    if let Some(long) = change.records.iter().filter_map(|(_, it)| it.as_ref()).find(is_long) {
        return Err(format!("a record of {} bytes is too long for the books", long.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
