//! What `consul kv export` prints: a JSON array of keys with base64 values.

use std::io::{self, Read};

use serde::Deserialize;

use super::{Found, ImportError};
use dkv_gateway::bytes_json;

/// A key. Its flags, which only Consul's clients know, are left out.
#[derive(Deserialize)]
struct Exported {
    key: String,
    #[serde(default)]
    value: Option<String>,
}

/// Reads all keys.
///
/// # Errors
/// It is not such an array.
pub(super) fn read(
    input: impl Read,
    mut each: impl FnMut(Found) -> io::Result<()>,
) -> Result<(), ImportError> {
    let all: Vec<Exported> = serde_json::from_reader(input).map_err(|error| {
        ImportError::Malformed(format!("it is not what consul kv export prints: {error}"))
    })?;
    for Exported { key, value } in all {
        let taken = bytes_json::take("value", None, Some(value.unwrap_or_default()));
        let value = taken.map_err(|_| {
            ImportError::Malformed(format!("the value of {} is not base64", key.escape_debug()))
        })?;
        // A folder, which Consul keeps as a key of its own, is an empty value like any other.
        each(Found { key: key.into_bytes(), value: value.unwrap_or_default(), ttl_ms: None })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<Found>, String> {
        let mut found = Vec::new();
        let read = read(text.as_bytes(), |it| {
            found.push(it);
            Ok(())
        });
        read.map(|()| found).map_err(|error| error.to_string())
    }

    #[test]
    fn exported_keys_are_read() {
        let text = r#"[
            {"key": "app/color", "flags": 0, "value": "Ymx1ZQ=="},
            {"key": "app/raw", "flags": 42, "value": "/wA="},
            {"key": "app/folder/", "flags": 0, "value": ""}
        ]"#;
        let found = all(text).unwrap();
        let values: Vec<&[u8]> = found.iter().map(|it| &it.value[..]).collect();
        assert_eq!(values, [&b"blue"[..], b"\xff\0", b""]);
        assert_eq!(found[2].key, b"app/folder/");
        assert!(all("{}").unwrap_err().contains("consul kv export"));
        assert!(all(r#"[{"key": "k", "value": "?"}]"#).unwrap_err().contains("not base64"));
    }
}
