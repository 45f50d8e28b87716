//! Collects diagnostics about a network into one file: `debug bundle`.
//!
//! The file has what the other commands show, and neither keys nor values, tokens or certificates.

mod tar;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use dkv_api::{Client, Error};
use dkv_console::Console;
use dkv_console::problem::{Abort, Problem};
use dkv_console::units::{bytes, timestamp};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use self::tar::Archive;
use crate::doctor::{self, Examination};
use crate::store::Store;

/// Level of the compression: fast, and good enough for text.
const ZSTD_LEVEL: i32 = 3;

const ABOUT: &str = "\
What an operator sees of a dkv network at one moment.

status.json     nodes, shards, replicas and warnings, as dkv status --json
doctor.json     likely failures, as dkv doctor --json
placement.json  where replicas are and where they move
keyspaces.json  names, settings and sizes of the keyspaces
settings.json   the settings that the nodes share
nodes/*.json    each node's version, groups, clock, disk, files, slow requests and the last
                changes of leader that it saw

There are names and addresses of nodes, and names of keyspaces. There are no keys, values, tokens
or certificates, and no lines of logs.
";

/// Writes the bundle to `file`, to standard output if that is `-`, or to a new file in this
/// directory.
pub(crate) async fn run(
    file: Option<&Path>,
    store: &impl Store,
    client: &Client,
    console: &mut Console,
) -> Result<(), Abort> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let file = file.map_or_else(|| default_file(now.as_millis() as u64), Path::to_owned);
    let examination = doctor::examine(store, client).await?;
    let (placement, keyspaces) = tokio::join!(client.placement(true), client.list_keyspaces());
    let mut archive = Archive::default();
    let mut names = Vec::new();
    let parts = parts(&examination, &of(placement), &of(keyspaces));
    for (name, content) in parts {
        archive.add(&format!("dkv-debug/{name}"), &content, now.as_secs());
        names.push(name);
    }
    let failed = |error: std::io::Error| {
        Problem::failed(format!("cannot write {}: {error}", file.display()))
    };
    let packed = zstd::bulk::compress(&archive.finish(), ZSTD_LEVEL).map_err(failed)?;
    if file == Path::new("-") {
        return Ok(console.bytes(&packed)?);
    }
    write(&file, &packed).map_err(failed)?;
    let size = packed.len() as u64;
    let text = format!(
        "{} has {} of {} files, without keys, values or tokens; tar --zstd -xf {0} unpacks it",
        file.display(),
        bytes(size),
        names.len()
    );
    console.changed(&text, || {
        json!({
            "command": "debug bundle",
            "file": file.display().to_string(),
            "bytes": size,
            "parts": names,
        })
    })?;
    Ok(())
}

/// Writes a new file, whole or not at all: never over another one, and not for others to read.
fn write(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    // Created for its owner only.
    let mut whole = NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    whole.write_all(bytes)?;
    whole.as_file().sync_all()?;
    whole.persist_noclobber(file).map_err(|failed| failed.error)?;
    Ok(())
}

fn default_file(now_ms: u64) -> PathBuf {
    let time: String = timestamp(now_ms).chars().filter(char::is_ascii_digit).collect();
    PathBuf::from(format!("dkv-debug-{time}.tar.zst"))
}

/// Returns a part of the bundle, or why it is missing.
fn of<T: serde::Serialize>(asked: Result<T, Error>) -> Value {
    match asked {
        Ok(found) => serde_json::to_value(found).unwrap_or_default(),
        Err(error) => json!({ "error": error.to_string() }),
    }
}

fn parts(
    examination: &Examination,
    placement: &Value,
    keyspaces: &Value,
) -> Vec<(String, Vec<u8>)> {
    let pretty = |value: &Value| format!("{value:#}\n").into_bytes();
    let status = &examination.status;
    let settings = status.view.as_ref().map(|view| &view.settings);
    let mut parts = vec![
        ("README.txt".to_owned(), ABOUT.as_bytes().to_vec()),
        ("status.json".to_owned(), examination.status_json().into_bytes()),
        ("doctor.json".to_owned(), pretty(&examination.document())),
        ("placement.json".to_owned(), pretty(placement)),
        ("keyspaces.json".to_owned(), pretty(keyspaces)),
        ("settings.json".to_owned(), pretty(&json!(settings))),
    ];
    for (info, status) in &status.nodes {
        let diagnosis = examination.diagnosis(&info.name);
        let node = json!({
            "id": info.id.to_string(),
            "name": info.name,
            "status": status.as_ref().ok(),
            "error": status.as_ref().err().map(ToString::to_string),
            "diagnosis": diagnosis,
        });
        parts.push((format!("nodes/{}.json", info.name.replace('/', "_")), pretty(&node)));
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_bundle_is_written_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bundle");
        write(&file, b"one").unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let taken = write(&file, b"two").unwrap_err();
        assert_eq!(taken.kind(), std::io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&file).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a part was left");
    }
}
