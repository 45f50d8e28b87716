//! `dkv import`: stores records of a file, of Redis, of Consul or of etcd.
//!
//! Foreign formats are first converted to the lines of JSON that `load` takes, in a temporary file;
//! then `load` stores them. So whatever is malformed refuses the whole, and a record is retried,
//! counted and reported in one way.

mod consul;
mod etcd;
mod lzf;
mod rdb;
mod redis;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;

use dkv_console::Console;
use dkv_console::problem::{Abort, Problem};
use dkv_console::units::{number, plural};
use dkv_gateway::bytes_json::{self, Encoding};
use serde_json::{Map, Value};

use crate::backup::now_ms;
use crate::cli::{ImportArgs, ImportFormat, TransferArgs};
use crate::input::is_stdin;
use crate::load::{self, Task};
use crate::store::Store;

/// The variable with the password of a server, as for Redis' own client.
const PASSWORD: &str = "REDISCLI_AUTH";

/// A key that was found elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    key: Vec<u8>,
    value: Vec<u8>,
    /// The time that the key has left, in milliseconds.
    ttl_ms: Option<u64>,
}

/// Why a source cannot be imported. Nothing was stored.
#[derive(Debug, thiserror::Error)]
enum ImportError {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// It is not what it should be.
    #[error("{0}")]
    Malformed(String),
}

/// Keys that are left out, and why.
#[derive(Debug, Default)]
struct LeftOut {
    /// Keys whose value is no string.
    other_types: u64,
    /// Keys that have expired.
    expired: u64,
}

/// Writes keys as lines of JSON, into a file without a name: it holds values, and the system
/// removes it when this process ends, in whatever way.
struct Lines {
    file: BufWriter<File>,
    count: u64,
}

impl Lines {
    fn new() -> io::Result<Self> {
        Ok(Self::to(tempfile::tempfile().map_err(no_copy)?))
    }

    fn to(file: File) -> Self {
        Self { file: BufWriter::new(file), count: 0 }
    }

    fn add(&mut self, found: &Found) -> io::Result<()> {
        let mut object = Map::new();
        bytes_json::put(&mut object, "key", &found.key, Encoding::Text);
        bytes_json::put(&mut object, "value", &found.value, Encoding::Text);
        if let Some(ttl_ms) = found.ttl_ms {
            object.insert("ttl_ms".into(), ttl_ms.into());
        }
        self.count += 1;
        writeln!(self.file, "{}", Value::Object(object)).map_err(no_copy)
    }

    fn finish(self) -> io::Result<File> {
        self.file.into_inner().map_err(|error| no_copy(error.into_error()))
    }
}

/// Says that it is the copy which cannot be written, and not what is imported.
fn no_copy(error: io::Error) -> io::Error {
    let directory = std::env::temp_dir();
    let why = format!(
        "cannot write a temporary copy in {}: {error}; set TMPDIR to another directory",
        directory.display()
    );
    io::Error::new(error.kind(), why)
}

/// Carries out `import`.
pub(crate) async fn run(
    args: &ImportArgs,
    store: &impl Store,
    console: &mut Console,
) -> Result<(), Abort> {
    if let Some(args) = args.of_etcd() {
        return etcd::run(args, store, console).await;
    }
    let Some(file) = &args.file else {
        return Err(Problem::usage("name what to import").into());
    };
    let shown = file.display().to_string();
    let is_redis = shown.starts_with("redis://") || shown.starts_with("rediss://");
    let format = args.format.or_else(|| of_name(file));
    let failed = |error: &ImportError| {
        let name = if is_redis { redis::without_password(&shown) } else { shown.clone() };
        Problem::failed(format!("cannot import {name}: {error}; nothing was stored"))
    };
    let converted = match format {
        _ if is_redis => redis::scan(&shown, dkv_base::environment::text(PASSWORD)).await,
        Some(format @ (ImportFormat::Rdb | ImportFormat::Consul)) => {
            let file = file.clone();
            let converting = tokio::task::spawn_blocking(move || convert(&file, format));
            converting.await.unwrap_or_else(|error| Err(ImportError::Malformed(error.to_string())))
        }
        own => {
            let transfer = transfer(args, file, own.and_then(ImportFormat::of_load));
            return load(&transfer, store, console).await;
        }
    };
    let (lines, left_out) = converted.map_err(|error| failed(&error))?;
    let count = lines.count;
    let file = lines.finish().map_err(|error| failed(&error.into()))?;
    let LeftOut { other_types, expired } = left_out;
    if other_types > 0 {
        console.remark(&format!(
            "left out {} {} whose value is no string",
            number(other_types),
            plural(other_types, "key", "keys")
        ));
    }
    if expired > 0 {
        let keys = plural(expired, "key", "keys");
        console.remark(&format!("left out {} {keys} that expired", number(expired)));
    }
    if count == 0 {
        return Err(failed(&ImportError::Malformed("it has no keys to import".into())).into());
    }
    let shown = if is_redis { redis::without_password(&shown) } else { shown };
    let mut transfer = transfer(args, Path::new(&shown), Some(crate::cli::Format::Json));
    transfer.opened = Some(Arc::new(file));
    transfer.shown = Some(shown);
    load(&transfer, store, console).await
}

async fn load(
    transfer: &TransferArgs,
    store: &impl Store,
    console: &mut Console,
) -> Result<(), Abort> {
    let source = load::source(Task::Load, transfer, console).await?;
    load::run(Task::Load, &source, transfer, store, console).await
}

fn transfer(args: &ImportArgs, file: &Path, format: Option<crate::cli::Format>) -> TransferArgs {
    TransferArgs {
        file: file.to_owned(),
        format,
        binary: false,
        in_flight: args.in_flight,
        retry: args.retry,
        shown: None,
        opened: None,
        connect: args.connect.clone(),
    }
}

fn of_name(file: &Path) -> Option<ImportFormat> {
    match file.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "rdb" => Some(ImportFormat::Rdb),
        _ => None,
    }
}

fn convert(file: &Path, format: ImportFormat) -> Result<(Lines, LeftOut), ImportError> {
    let input: Box<dyn Read> = match is_stdin(file) {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(file)?),
    };
    let (mut lines, mut left_out) = (Lines::new()?, LeftOut::default());
    let input = BufReader::with_capacity(1 << 18, input);
    match format {
        ImportFormat::Consul => consul::read(input, |found| lines.add(&found))?,
        _ => rdb::read(input, now_ms(), &mut left_out, |found| lines.add(&found))?,
    }
    Ok((lines, left_out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_of_the_copy_is_told_apart_from_the_source() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let found = Found { key: b"key".to_vec(), value: vec![b'v'; 100_000], ttl_ms: None };
        let temporary = std::env::temp_dir().display().to_string();
        let mut lines = Lines::to(full.try_clone().unwrap());
        let large = lines.add(&found).unwrap_err();
        let mut lines = Lines::to(full);
        lines.add(&Found { value: b"small".to_vec(), ..found }).unwrap();
        for error in [large, lines.finish().unwrap_err()] {
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            let said = ImportError::from(error).to_string();
            assert!(said.contains(&temporary) && said.contains("TMPDIR"), "{said}");
        }
    }
}
