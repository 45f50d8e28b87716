//! Changes as they happen: `watch [PREFIX]`.
//!
//! A watch runs until Ctrl-C. Then, and when it fails, it prints the position from which another
//! one can go on.

use dkv_api::{Client, Error, KeyChange, KeyRange, WatchEvent, WatchOptions};
use dkv_console::problem::{Abort, Problem};
use dkv_console::signals::Signals;
use dkv_console::{Console, quote};
use dkv_gateway::bytes_json::Encoding;
use dkv_gateway::version_json;
use serde_json::json;

use crate::api_problems::watch_problem;
use crate::grammar::Watch;
use crate::history::{time, what};

/// Watches until a signal or an error.
pub(crate) async fn run(
    wanted: &Watch,
    client: &Client,
    console: &mut Console,
) -> Result<(), Abort> {
    let mut signals = Signals::take()
        .map_err(|error| Problem::failed(format!("cannot listen for signals: {error}")))?;
    let keys = match wanted.exact {
        true => KeyRange::Key(wanted.keys.clone().into()),
        false => KeyRange::Prefix(wanted.keys.clone().into()),
    };
    let mut options = WatchOptions::default().previous(wanted.previous);
    options.from.clone_from(&wanted.from);
    let begun = tokio::select! {
        begun = client.watch(keys, options) => begun,
        _ = signals.next() => return Ok(()),
    };
    let mut watch = begun.map_err(|error| watch_problem(&error))?;
    let position = |what: &str, watch: &dkv_api::Watch| {
        let token = watch.token().to_string();
        json!({ "what": what, "token": token })
    };
    if console.json {
        console.document(&position("begin", &watch))?;
        console.flush()?;
    } else {
        console.note(&format!("watching from {}; Ctrl-C ends it", watch.token()));
    }
    let error = loop {
        let event = tokio::select! {
            biased;
            _ = signals.next() => break None,
            event = watch.next() => event,
        };
        match event {
            Ok(WatchEvent::Change(change)) if console.json => {
                console.document(&version_json::change(
                    &change,
                    wanted.previous,
                    Encoding::Text,
                ))?;
                console.flush()?;
            }
            Ok(WatchEvent::Change(change)) => {
                let line = line(&change, wanted.previous, console.terminal);
                console.line(line.trim_end())?;
            }
            Ok(WatchEvent::Progress { .. }) if console.json => {
                console.document(&position("progress", &watch))?;
                console.flush()?;
            }
            Ok(_) => {}
            Err(error) => break Some(error),
        }
    };
    if console.json {
        console.document(&position("end", &watch))?;
        console.flush()?;
    } else if !matches!(error, Some(Error::Compacted { .. } | Error::NotYet { .. })) {
        console.note(&format!("go on with: {}", resumed(wanted, watch.token())));
    }
    error.map_or(Ok(()), |error| Err(watch_problem(&error).into()))
}

/// Returns the command that goes on from a position.
fn resumed(wanted: &Watch, token: &dkv_api::WatchToken) -> String {
    Watch { from: Some(token.clone()), ..wanted.clone() }.to_string()
}

/// Returns the line of a change.
fn line(change: &KeyChange, with_previous: bool, short: bool) -> String {
    let KeyChange { shard, key, value, revision, stamp, previous, .. } = change;
    let (what, value) = what(value.as_ref(), short);
    let place = format!("{shard}:{revision}");
    let mut line =
        format!("{}  {place:<10}  {what:<6}  {}  {value}", time(*stamp), quote::quoted(key));
    if with_previous {
        let before = match previous {
            Some(version) => {
                let (_, value) = self::what(version.value.as_ref(), short);
                format!("(before: {value}, revision {})", version.revision)
            }
            None => "(before: nothing that is kept)".to_owned(),
        };
        line = format!("{}  {before}", line.trim_end());
    }
    line
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dkv_api::{Bytes, GroupId, LeaseId, Revision, Stamp, Version};

    use super::*;

    #[test]
    fn a_change_is_a_line() {
        let stamp = Stamp::at(Duration::from_millis(1_772_368_496_000));
        let version = Version {
            revision: Revision(16),
            created: Revision(3),
            version: 4,
            stamp,
            value: Some(Bytes::from_static(b"red")),
            lease: LeaseId::default(),
            expiry: None,
        };
        let mut change = KeyChange {
            shard: GroupId(1),
            key: Bytes::from_static(b"a key"),
            value: Some(Bytes::from_static(b"blue")),
            revision: Revision(17),
            created: Revision(3),
            version: 5,
            stamp,
            previous: Some(version),
            lease: LeaseId::default(),
            expiry: None,
        };
        assert_eq!(
            line(&change, false, true),
            "2026-03-01 12:34:56 UTC  1:17        put     \"a key\"  blue"
        );
        assert!(line(&change, true, true).ends_with("  blue  (before: red, revision 16)"));
        (change.value, change.previous) = (None, None);
        assert_eq!(
            line(&change, true, true),
            "2026-03-01 12:34:56 UTC  1:17        delete  \"a key\"  (before: nothing that is kept)"
        );
    }

    #[test]
    fn the_command_to_go_on_with_can_be_typed() {
        let wanted = Watch { keys: b"user/".to_vec(), previous: true, ..Watch::default() };
        let token = "1:500,2:33".parse().unwrap();
        assert_eq!(resumed(&wanted, &token), "watch user/ --from 1:500,2:33 --previous");
    }
}
