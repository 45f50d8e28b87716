//! Destinations: a directory, or a bucket that speaks S3.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::clock::compact;
use super::error::BackupError;

/// The object that says what a backup is of. Keyspaces are folders beside it, and their names do
/// not begin with a dot.
pub(crate) const PLAN: &str = ".plan";
/// The object that makes a backup complete.
pub(crate) const MANIFEST: &str = ".manifest";
/// The object that says that a backup is being removed.
pub(crate) const REMOVED: &str = ".removed";

/// Folders that are looked into at the same time.
const LOOKS_AT_ONCE: usize = 16;

/// Where backups are kept.
#[derive(Clone, Debug)]
pub struct Destination {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    shown: String,
    directory: Option<PathBuf>,
    /// The object whose reading fails.
    #[cfg(test)]
    pub(crate) broken: Arc<std::sync::Mutex<Option<String>>>,
}

impl Destination {
    /// Opens a directory or `s3://BUCKET/PREFIX`. The latter takes its credentials, region and
    /// endpoint from the variables that Amazon's own tools read, such as `AWS_ACCESS_KEY_ID` and
    /// `AWS_ENDPOINT_URL`.
    ///
    /// # Errors
    /// If the text names neither, or the directory does not exist and is not to be created.
    pub fn open(text: &str, create: bool) -> Result<Self, BackupError> {
        if let Some(rest) = text.strip_prefix("s3://") {
            return Self::bucket(text, rest);
        }
        if let Some((scheme, _)) = text.split_once("://") {
            let why = format!("{scheme}:// is not supported; name a directory or s3://BUCKET/PATH");
            return Err(BackupError::Destination(why));
        }
        if text.is_empty() {
            return Err(BackupError::Destination("the destination is empty".into()));
        }
        let failed = |why: &dyn std::fmt::Display| {
            BackupError::Destination(format!("cannot use {text} as a destination: {why}"))
        };
        let path = FilePath::new(text);
        if create {
            create_private(path).map_err(|error| failed(&error))?;
        }
        let path = path.canonicalize().map_err(|error| failed(&error))?;
        if !path.is_dir() {
            return Err(failed(&"it is not a directory"));
        }
        let store = LocalFileSystem::new_with_prefix(&path).map_err(|error| failed(&error))?;
        Ok(Self {
            store: Arc::new(store.with_fsync(true).with_automatic_cleanup(true)),
            prefix: Path::default(),
            shown: text.trim_end_matches('/').to_owned(),
            directory: Some(path),
            #[cfg(test)]
            broken: Arc::default(),
        })
    }

    fn bucket(text: &str, rest: &str) -> Result<Self, BackupError> {
        let failed = |why: &dyn std::fmt::Display| {
            BackupError::Destination(format!("cannot use {text} as a destination: {why}"))
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(failed(&"it names no bucket"));
        }
        let endpoint = dkv_base::environment::text("AWS_ENDPOINT_URL").unwrap_or_default();
        let store = bucket_from(std::env::vars_os())
            .with_bucket_name(bucket)
            .with_allow_http(endpoint.starts_with("http://"))
            .build()
            .map_err(|error| failed(&error))?;
        let prefix = Path::parse(prefix.trim_matches('/')).map_err(|error| failed(&error))?;
        let shown = text.trim_end_matches('/').to_owned();
        Ok(Self {
            store: Arc::new(store),
            prefix,
            shown,
            directory: None,
            #[cfg(test)]
            broken: Arc::default(),
        })
    }

    /// Opens a destination in memory, with a pause before each deletion.
    #[cfg(test)]
    pub(crate) fn in_memory(pause: std::time::Duration) -> Self {
        use object_store::throttle::{ThrottleConfig, ThrottledStore};
        let config = ThrottleConfig { wait_delete_per_call: pause, ..ThrottleConfig::default() };
        let store = ThrottledStore::new(object_store::memory::InMemory::new(), config);
        let (prefix, shown) = (Path::default(), "memory".to_owned());
        Self { store: Arc::new(store), prefix, shown, directory: None, broken: Arc::default() }
    }

    /// Returns the destination as the user named it.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Returns the place of an object, for people.
    pub(crate) fn place(&self, name: &str) -> String {
        format!("{}/{name}", self.shown)
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// Refuses a directory that holds something else than backups.
    pub(crate) async fn check_is_ours(&self) -> Result<(), BackupError> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let mut entries =
            std::fs::read_dir(directory).map_err(|error| self.unreadable("", error))?;
        let is_empty = entries.next().is_none();
        if is_empty || !self.with_plan().await?.is_empty() {
            return Ok(());
        }
        Err(BackupError::Destination(format!(
            "{} holds other files and no backup; name an empty or a new directory",
            self.shown
        )))
    }

    /// Returns the names of the backups, the oldest first, without those that are being removed.
    pub(crate) async fn backups(&self) -> Result<Vec<String>, BackupError> {
        let all = self.with_plan().await?;
        Ok(all.into_iter().filter(|(_, is_removed)| !is_removed).map(|(name, _)| name).collect())
    }

    /// Returns the names of the backups whose removal was begun.
    pub(crate) async fn removed(&self) -> Result<Vec<String>, BackupError> {
        let all = self.with_plan().await?;
        Ok(all.into_iter().filter(|(_, is_removed)| *is_removed).map(|(name, _)| name).collect())
    }

    /// Returns the names of the folders with a plan, in order, and whether each is being removed.
    async fn with_plan(&self) -> Result<Vec<(String, bool)>, BackupError> {
        let prefix = Some(&self.prefix).filter(|prefix| !prefix.as_ref().is_empty());
        let found = self.store.list_with_delimiter(prefix).await;
        let found = found.map_err(|error| self.unreadable("", error))?;
        let names = found.common_prefixes.iter().filter_map(|folder| folder.filename());
        let names = names.filter(|name| is_backup_name(name)).map(str::to_owned);
        let looked = names.map(|name| async move {
            let has_plan = self.exists(&format!("{name}/{PLAN}")).await?;
            let is_removed = has_plan && self.exists(&format!("{name}/{REMOVED}")).await?;
            Ok::<_, BackupError>(has_plan.then_some((name, is_removed)))
        });
        let mut all: Vec<(String, bool)> = stream::iter(looked)
            .buffer_unordered(LOOKS_AT_ONCE)
            .try_filter_map(|found| std::future::ready(Ok(found)))
            .try_collect()
            .await?;
        all.sort();
        Ok(all)
    }

    /// Returns when something of a backup was written last, in milliseconds since 1970.
    pub(crate) async fn written_ms(&self, backup: &str) -> Result<u64, BackupError> {
        let listed = self.store.list(Some(&self.path(backup)));
        let last = listed.try_fold(0, |last, object| async move {
            Ok(last.max(object.last_modified.timestamp_millis()))
        });
        let last = last.await.map_err(|error| self.unreadable(backup, error))?;
        Ok(u64::try_from(last).unwrap_or(0))
    }

    /// Creates the folder of a backup, which only its owner may read.
    pub(crate) fn create_folder(&self, backup: &str) -> Result<(), BackupError> {
        let Some(directory) = &self.directory else { return Ok(()) };
        create_private(&directory.join(backup)).map_err(|error| BackupError::Write {
            place: self.place(backup),
            why: error.to_string(),
        })
    }

    /// Returns whether there is an object.
    pub(crate) async fn exists(&self, name: &str) -> Result<bool, BackupError> {
        match self.store.head(&self.path(name)).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.unreadable(name, error)),
        }
    }

    /// Returns an object; `None` if there is none.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<Bytes>, BackupError> {
        #[cfg(test)]
        if self.broken.lock().unwrap().as_deref() == Some(name) {
            return Err(self.unreadable(name, std::io::Error::other("it is broken")));
        }
        let read = async { self.store.get(&self.path(name)).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.unreadable(name, error)),
        }
    }

    /// Returns an object that must be there.
    pub(crate) async fn read(&self, name: &str) -> Result<Bytes, BackupError> {
        let found = self.find(name).await?;
        found.ok_or_else(|| BackupError::damaged(&self.place(name), "it is missing"))
    }

    /// Writes an object that must not be there yet, durably.
    pub(crate) async fn write(&self, name: &str, bytes: Bytes) -> Result<(), BackupError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let path = self.path(name);
        match self.store.put_opts(&path, PutPayload::from(bytes.clone()), options).await {
            Ok(_) => Ok(()),
            // A bucket may have taken it and its answer was lost, so that it was sent again.
            Err(Error::AlreadyExists { .. }) => match self.find(name).await? {
                Some(there) if there == bytes => Ok(()),
                _ => Err(BackupError::Taken(self.place(name))),
            },
            Err(error) => Err(BackupError::Write { place: self.place(name), why: reason(&error) }),
        }
    }

    /// Deletes an object, if it is there.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), BackupError> {
        match self.store.delete(&self.path(name)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(BackupError::Write { place: self.place(name), why: reason(&error) }),
        }
    }

    /// Returns the objects below a folder: their names in it and their sizes, in order.
    pub(crate) async fn objects(&self, folder: &str) -> Result<Vec<(String, u64)>, BackupError> {
        let path = self.path(folder);
        let listed: Vec<_> = self
            .store
            .list(Some(&path))
            .try_collect()
            .await
            .map_err(|error| self.unreadable(folder, error))?;
        let mut objects: Vec<(String, u64)> = listed
            .into_iter()
            .filter_map(|object| {
                let inner = object.location.prefix_match(&path)?;
                let inner: Vec<String> = inner.map(|part| part.as_ref().to_owned()).collect();
                Some((inner.join("/"), object.size))
            })
            .collect();
        objects.sort();
        Ok(objects)
    }

    /// Removes what is empty after everything below a folder was deleted.
    pub(crate) fn remove_folders(&self, folder: &str) {
        if let Some(directory) = &self.directory {
            // Folders that still hold something stay.
            let folder = directory.join(folder);
            let inner = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            for entry in inner {
                // Files that a killed writer had not finished, named after the chunk and a number.
                for file in std::fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                    if file.file_name().to_string_lossy().contains('#') {
                        let _ = std::fs::remove_file(file.path());
                    }
                }
                let _ = std::fs::remove_dir(entry.path());
            }
            let _ = std::fs::remove_dir(folder);
        }
    }

    fn unreadable(&self, name: &str, error: impl std::error::Error) -> BackupError {
        let place = self.place(name).trim_end_matches('/').to_owned();
        BackupError::Read { place, why: reason(&error) }
    }
}

/// Begins with the credentials and the place that the environment names. It differs from the
/// library's own reading of it in that a blank variable counts as not set.
fn bucket_from(variables: impl Iterator<Item = (OsString, OsString)>) -> AmazonS3Builder {
    let named = variables.filter_map(|(name, value)| {
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        let key = name.strip_prefix("AWS_").map(|_| name.to_ascii_lowercase())?;
        (!value.trim().is_empty()).then_some((key.parse().ok()?, value))
    });
    named.fold(AmazonS3Builder::new(), |builder, (key, value): (AmazonS3ConfigKey, _)| {
        builder.with_config(key, value)
    })
}

/// Creates a directory, and those above it, for their owner only: they hold what the network holds.
fn create_private(path: &FilePath) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Returns the innermost reason of an error in one line: the outer ones repeat the place.
fn reason(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let text = innermost.to_string();
    // A bucket answers in XML, of which the message is for people.
    let message = text.split_once("<Message>").and_then(|(_, rest)| rest.split_once("</Message>"));
    let text = match (text.split_once("<?xml"), message) {
        (Some((status, _)), Some((message, _))) => format!("{status}{message}"),
        _ => text,
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns whether a name looks like that of a backup: `20261129T224500Z-1a2bc`.
fn is_backup_name(name: &str) -> bool {
    let fits = |(at, byte): (usize, &u8)| match at {
        8 => *byte == b'T',
        15 => *byte == b'Z',
        16 => *byte == b'-',
        17.. => byte.is_ascii_hexdigit(),
        _ => byte.is_ascii_digit(),
    };
    name.len() == 22 && name.as_bytes().iter().enumerate().all(fits)
}

/// Returns the name of a backup that begins now. Names are in the order of their milliseconds.
pub(crate) fn backup_name(now_ms: u64, random: u8) -> String {
    format!("{}-{:03x}{random:02x}", compact(now_ms), now_ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_time() {
        let name = backup_name(1_772_368_496_123, 0x2b);
        assert_eq!(name, "20260301T123456Z-07b2b");
        assert!(is_backup_name(&name));
        assert!(backup_name(1_772_368_496_124, 0) > name);
        for other in ["lost+found", "20260301T123456Z_1a2bc", "", "data"] {
            assert!(!is_backup_name(other), "{other}");
        }
    }

    #[tokio::test]
    async fn an_object_is_written_once() {
        let destination = Destination::in_memory(std::time::Duration::ZERO);
        for _ in 0..2 {
            destination.write("b/k/1", Bytes::from_static(b"one")).await.unwrap();
        }
        let other = destination.write("b/k/1", Bytes::from_static(b"two")).await;
        assert!(matches!(other, Err(BackupError::Taken(_))));
        assert_eq!(destination.read("b/k/1").await.unwrap(), &b"one"[..]);
    }

    #[test]
    fn others_cannot_read_what_is_written() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("some/backups");
        let destination = Destination::open(path.to_str().unwrap(), true).unwrap();
        destination.create_folder("b").unwrap();
        for created in [&path, &path.join("b"), &directory.path().join("some")] {
            let mode = std::fs::metadata(created).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", created.display());
        }
    }

    #[test]
    fn blank_variables_of_a_bucket_count_as_not_set() {
        let set =
            [("AWS_REGION", "eu-1"), ("AWS_ENDPOINT_URL", ""), ("AWS_TOKEN", " "), ("HOME", "/")];
        let builder = bucket_from(set.map(|(name, value)| (name.into(), value.into())).into_iter());
        let value = |key| builder.get_config_value(&key);
        assert_eq!(value(AmazonS3ConfigKey::Region).as_deref(), Some("eu-1"));
        assert_eq!(value(AmazonS3ConfigKey::Endpoint), None);
        assert_eq!(value(AmazonS3ConfigKey::Token), None);
    }

    #[test]
    fn destinations_are_directories_and_buckets() {
        let wrong = |text| Destination::open(text, false).unwrap_err().to_string();
        assert!(wrong("ftp://x").contains("name a directory or s3://BUCKET/PATH"));
        assert!(wrong("s3://").contains("names no bucket"));
        assert!(wrong("/nowhere/at/all").contains("No such file"));
        assert!(wrong("/dev/null").contains("not a directory"));
    }
}
