//! The keyspace that is restored, and its mark.

use bytes::Bytes;
use dkv_api::{Client, Condition, Error, KeyspaceSettings, ScanOptions, WriteOptions};
use dkv_wire::codec;

use super::PATIENCE;
use super::source::Source;
use crate::error::BackupError;
use crate::marker::{self, Marker};
use crate::pages::wait;

/// A keyspace that is restored.
pub(super) struct Target {
    pub(super) client: Client,
    pub(super) marker: Marker,
    pub(super) resumed: bool,
}

/// Returns the mark of a keyspace, if it has one.
pub(super) async fn marked(client: &Client) -> Result<Option<Marker>, BackupError> {
    match client.read(marker::KEY).await {
        Ok(read) => {
            let unknown = "a restore of another version of dkv was interrupted there";
            let marker = codec::decode(&read.value);
            marker.map(Some).map_err(|_| BackupError::Refused(unknown.into()))
        }
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(BackupError::network("cannot read the keyspace")(error)),
    }
}

impl Target {
    /// Checks that a keyspace can take what is restored. Returns it, if it exists, and its mark.
    pub(super) async fn check(
        client: &Client,
        name: &str,
        source: &Source,
    ) -> Result<Option<(Client, Option<Marker>)>, BackupError> {
        let target = match client.keyspace(name).await {
            Ok(target) => target,
            Err(Error::NoKeyspace { .. }) => return Ok(None),
            Err(error) => return Err(BackupError::network("cannot use the keyspace")(error)),
        };
        if let Some(marker) = marked(&target).await? {
            let Marker { backup, keyspace, cut, .. } = &marker;
            if (backup, keyspace, cut) == (&source.backup, &source.keyspace, &source.cut) {
                return Ok(Some((target, Some(marker))));
            }
            return Err(BackupError::Refused(format!(
                "another restore of keyspace {name} was interrupted, of backup {backup}; go on with \
                 that, or drop it with restore --drop {name}"
            )));
        }
        let page = target.scan(ScanOptions::default().limit(1).values(false)).page(1, 1).await;
        let page = page.map_err(BackupError::network("cannot list the keyspace"))?;
        if page.pairs.is_empty() {
            return Ok(Some((target, None)));
        }
        Err(BackupError::Refused(format!(
            "keyspace {name} has keys, and a restore never touches what is there; restore it under \
             another name (--as NAME), or into a new network"
        )))
    }

    /// Creates the keyspace if need be, and marks it.
    pub(super) async fn begin(
        client: &Client,
        name: &str,
        source: &Source,
    ) -> Result<Self, BackupError> {
        let (target, created) = match Self::check(client, name, source).await? {
            Some((client, Some(marker))) => return Ok(Self { client, marker, resumed: true }),
            Some((client, None)) => (client, false),
            None => {
                // The quota comes last: what was there may have exceeded it.
                let settings = KeyspaceSettings { quota_bytes: None, ..source.settings.clone() };
                let created = client.create_keyspace(name, settings).await;
                created.map_err(BackupError::network("cannot create the keyspace"))?;
                let opened = client.keyspace(name).await;
                let opened = opened.map_err(BackupError::network("cannot use the keyspace"));
                (opened.map_err(|error| error.partly(created_stays(name)))?, true)
            }
        };
        let marker = Marker {
            backup: source.backup.clone(),
            keyspace: source.keyspace.clone(),
            cut: source.cut.clone(),
            through: Vec::new(),
            created,
        };
        let options = WriteOptions::default().condition(Condition::Absent);
        let marked = target.write_with(marker::KEY, codec::encode(&marker), options).await;
        let marked =
            marked.map_err(BackupError::network("cannot mark the keyspace as being restored"));
        marked.map_err(|error| if created { error.partly(created_stays(name)) } else { error })?;
        Ok(Self { client: target, marker, resumed: false })
    }

    /// Moves the mark.
    pub(super) async fn mark(&mut self, through: &[u8]) -> Result<(), BackupError> {
        self.marker.through = through.to_vec();
        let value = codec::encode(&self.marker);
        put(&self.client, marker::KEY, &value, WriteOptions::default()).await
    }

    /// Takes the mark away: the keyspace is whole.
    pub(super) async fn finish(&self) -> Result<(), BackupError> {
        match self.client.delete(marker::KEY).await {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(BackupError::network("cannot take the mark away")(error)),
        }
    }
}

/// Says what becomes of a keyspace that was created, and not marked.
fn created_stays(name: &str) -> String {
    format!("keyspace {name} was created for it, and stays empty: restoring it again goes on")
}

/// Writes a key, as often as it takes: what is written twice is the same.
pub(super) async fn put(
    client: &Client,
    key: &[u8],
    value: &Bytes,
    options: WriteOptions,
) -> Result<(), BackupError> {
    let mut trouble = None;
    loop {
        match client.write_with(key, value.clone(), options).await {
            Ok(_) => return Ok(()),
            Err(error) => wait(&mut trouble, PATIENCE, error, "cannot write a key").await?,
        }
    }
}
