//! Backups written by hand, for tests.

use std::path::PathBuf;
use std::time::Duration;

use dkv_wire::network::KeyspaceSettings;
use tempfile::TempDir;
use uuid::Uuid;

use super::chain::Chain;
use super::chunk::{Content, CutMark, Hash, seal_document};
use super::destination::{Destination, MANIFEST, PLAN, backup_name};
use super::plan::{ChainSummary, Kind, Manifest, Plan};
use super::reader;
use super::writer::Writer;

/// The content of the first chunk of a run.
pub(crate) fn base(continues: bool) -> Content {
    let from = "7040:1=500".to_owned();
    Content::Base { settings: KeyspaceSettings::default(), from, continues }
}

/// The content of a chunk with pages.
pub(crate) fn pages(last: bool) -> Content {
    Content::Pages { of: "7040:1=500".into(), last }
}

/// The token of the cut at a second.
fn token(second: u64) -> String {
    let moment = dkv_base::id::Stamp::at(Duration::from_secs(second)).0;
    format!("{moment}:1={}", 500 + second)
}

/// The content of the first chunk of an increment after the cut at a second.
pub(crate) fn after(parent: &Plan, second: u64) -> Content {
    let (settings, cut) = (KeyspaceSettings::default(), token(second));
    Content::After { settings, parent: parent.backup.clone(), cut }
}

/// The content of a chunk that completes the cut at a second.
pub(crate) fn cut(second: u64) -> Content {
    let token = token(second);
    let taken_ms = second * 1000;
    let cut = Some(CutMark { token, taken_ms, leases: true, base_ms: 0 });
    Content::Changes { position: format!("1:{}", 500 + second), cut }
}

/// The content of a chunk with changes.
pub(crate) fn changes() -> Content {
    Content::Changes { position: "1:510".into(), cut: None }
}

/// The content of the last chunk of a keyspace that was dropped at a second.
pub(crate) fn dropped(second: u64) -> Content {
    Content::Dropped { at_ms: second * 1000 }
}

/// A destination of backups.
pub(crate) struct Sample {
    pub(crate) destination: Destination,
    directory: TempDir,
}

impl Sample {
    /// Creates a directory of backups.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let destination = Destination::open(directory.path().to_str().unwrap(), false).unwrap();
        Self { destination, directory }
    }

    /// Creates a destination in memory, with a pause before each deletion.
    pub(crate) fn in_memory(pause: Duration) -> Self {
        Self { destination: Destination::in_memory(pause), ..Self::new() }
    }

    /// Begins a backup of all keyspaces at a second, the only one of that second.
    pub(crate) async fn begin(&self, second: u64, kind: Kind, keyspaces: &[&str]) -> (Plan, Hash) {
        self.begin_as(second, kind, keyspaces, |_| {}).await
    }

    /// Begins a backup with a plan that is changed first.
    pub(crate) async fn begin_as(
        &self,
        second: u64,
        kind: Kind,
        keyspaces: &[&str],
        change: impl FnOnce(&mut Plan),
    ) -> (Plan, Hash) {
        let mut plan = Plan {
            backup: backup_name(second * 1000, 0),
            kind,
            network: Uuid::from_u128(7),
            begun_ms: second * 1000,
            all: true,
            keyspaces: keyspaces.iter().map(|&name| name.to_owned()).collect(),
            parent: None,
        };
        change(&mut plan);
        let (bytes, hash) = seal_document(&plan);
        self.destination.write(&format!("{}/{PLAN}", plan.backup), bytes).await.unwrap();
        (plan, hash)
    }

    /// Adds chunks to a chain.
    pub(crate) async fn chunks(&self, plan: &Plan, keyspace: &str, contents: Vec<Content>) {
        let chain = self.chain(plan, keyspace).await;
        let destination = self.destination.clone();
        let mut writer = Writer::new(destination, &plan.backup, plan.network, keyspace, &chain);
        for content in contents {
            writer.append(content, Vec::new()).await.unwrap();
        }
    }

    /// Completes a backup of what is there.
    pub(crate) async fn complete(&self, (plan, hash): &(Plan, Hash)) {
        let mut chains = Vec::new();
        for (keyspace, _) in reader::numbers(&self.destination, &plan.backup).await.unwrap() {
            let chain = self.chain(plan, &keyspace).await;
            chains.push(ChainSummary {
                keyspace,
                first: 1,
                hashes: chain.links().iter().map(|link| link.hash).collect(),
            });
        }
        let (bytes, _) = seal_document(&Manifest { plan: *hash, chains });
        self.destination.write(&format!("{}/{MANIFEST}", plan.backup), bytes).await.unwrap();
    }

    /// Writes a complete backup of all keyspaces, in which each has one cut.
    pub(crate) async fn full(&self, second: u64, keyspaces: &[&str]) -> Plan {
        self.full_as(second, keyspaces, true).await
    }

    /// Writes a complete backup of all keyspaces, or of some of them.
    pub(crate) async fn full_as(&self, second: u64, keyspaces: &[&str], all: bool) -> Plan {
        let change = |plan: &mut Plan| plan.all = all;
        let begun = self.begin_as(second, Kind::Full, keyspaces, change).await;
        for keyspace in keyspaces {
            let contents = vec![base(false), pages(true), cut(second)];
            self.chunks(&begun.0, keyspace, contents).await;
        }
        self.complete(&begun).await;
        begun.0
    }

    async fn chain(&self, plan: &Plan, keyspace: &str) -> Chain {
        let (destination, backup) = (&self.destination, &plan.backup);
        let numbers = reader::numbers_of(destination, backup, keyspace).await.unwrap();
        reader::chain(destination, backup, keyspace, &numbers, |_| {}).await.unwrap()
    }

    /// Returns the file of a chunk.
    pub(crate) fn file(&self, plan: &Plan, keyspace: &str, number: u64) -> PathBuf {
        let chunk = super::writer::chunk_name(&plan.backup, keyspace, number);
        self.directory.path().join(chunk)
    }

    /// Returns the numbers of the chunks that are there.
    pub(crate) async fn left(&self, plan: &Plan, keyspace: &str) -> Vec<u64> {
        let left = reader::numbers_of(&self.destination, &plan.backup, keyspace).await;
        left.unwrap().into_iter().map(|(number, _)| number).collect()
    }
}
