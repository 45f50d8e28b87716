//! A backup that is there: its plan, its manifest, and where its chunks are.

use std::collections::BTreeMap;

use super::chain::{Chain, Link};
use super::chunk::hex;
use super::destination::{Destination, MANIFEST};
use super::error::BackupError;
use super::plan::{ChainSummary, Kind, Manifest, Plan};
use super::reader;
use super::writer::chunk_name;

/// A backup, as far as its plan and its manifest say what it holds.
pub(crate) struct Contents<'a> {
    destination: &'a Destination,
    pub(crate) plan: Plan,
    manifest: Option<Manifest>,
    /// The numbers of the chunks of each keyspace that count, in order, with their sizes.
    chunks: BTreeMap<String, Vec<(u64, u64)>>,
}

impl<'a> Contents<'a> {
    /// Reads the plan and the manifest of a backup.
    ///
    /// # Errors
    /// They are damaged, or do not belong together.
    pub(crate) async fn read(
        destination: &'a Destination,
        backup: &str,
    ) -> Result<Self, BackupError> {
        let (plan, plan_hash) = reader::plan(destination, backup).await?;
        let manifest = reader::manifest(destination, backup).await?.map(|(manifest, _)| manifest);
        if manifest.as_ref().is_some_and(|manifest| manifest.plan != plan_hash) {
            let place = destination.place(&format!("{backup}/{MANIFEST}"));
            let why = "it belongs to another plan than the one that is there";
            return Err(BackupError::damaged(&place, why));
        }
        let mut chunks: BTreeMap<String, Vec<(u64, u64)>> =
            reader::numbers(destination, backup).await?.into_iter().collect();
        if let Some(Manifest { chains, .. }) = &manifest {
            chunks.retain(|keyspace, _| chains.iter().any(|chain| chain.keyspace == *keyspace));
            for chain in chains {
                let numbers = chunks.entry(chain.keyspace.clone()).or_default();
                numbers.retain(|(number, _)| *number >= chain.first);
            }
        }
        Ok(Self { destination, plan, manifest, chunks })
    }

    /// Returns whether everything that the plan names is there.
    pub(crate) fn is_complete(&self) -> bool {
        self.plan.kind == Kind::Followed || self.manifest.is_some()
    }

    /// Returns the keyspaces: those of the manifest, or those that have chunks.
    pub(crate) fn keyspaces(&self) -> impl Iterator<Item = &String> {
        self.chunks.keys()
    }

    /// Returns the bytes of the chunks.
    pub(crate) fn bytes(&self) -> u64 {
        self.chunks.values().flatten().map(|(_, size)| size).sum()
    }

    /// Reads the chain of a keyspace, and compares it with what the manifest says.
    ///
    /// # Errors
    /// The first chunk that is damaged or missing.
    pub(crate) async fn chain(
        &self,
        keyspace: &str,
        each: impl FnMut(&Link),
    ) -> Result<Chain, BackupError> {
        let numbers = self.chunks.get(keyspace).map(Vec::as_slice).unwrap_or_default();
        let backup = &self.plan.backup;
        let chain = reader::chain(self.destination, backup, keyspace, numbers, each).await?;
        let chains = self.manifest.iter().flat_map(|manifest| &manifest.chains);
        if let Some(summary) = chains.into_iter().find(|chain| chain.keyspace == keyspace) {
            self.check(&chain, summary)?;
        }
        Ok(chain)
    }

    /// Compares a chain with what the manifest says of it.
    fn check(&self, chain: &Chain, summary: &ChainSummary) -> Result<(), BackupError> {
        let (backup, keyspace) = (&self.plan.backup, &summary.keyspace);
        for (index, hash) in summary.hashes.iter().enumerate() {
            let number = summary.first + index as u64;
            let place = self.destination.place(&chunk_name(backup, keyspace, number));
            match chain.links().get(index) {
                Some(link) if link.hash == *hash => {}
                Some(link) => {
                    let (is, was) = (hex(&link.hash), hex(hash));
                    let why = format!("its hash is {is}, and that in the manifest {was}");
                    return Err(BackupError::damaged(&place, why));
                }
                None => return Err(BackupError::damaged(&place, "it is missing")),
            }
        }
        if chain.links().len() > summary.hashes.len() {
            let place = self.destination.place(&format!("{backup}/{keyspace}"));
            return Err(BackupError::damaged(&place, "it has more chunks than its manifest says"));
        }
        Ok(())
    }
}
