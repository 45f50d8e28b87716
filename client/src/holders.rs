//! Who was let in, and whom to refuse from now on.

use std::io;

use dkv_api::{Client, Error, HolderId, HolderInfo, HolderKind, Rights, TokenInfo, Uuid};
use serde_json::json;

use crate::admin::failed;
use crate::human::{moment, plural};
use crate::run::request_problem;
use crate::screen::Screen;

/// Fewest characters of an id that stand for all of it.
const BEGINNING_MIN: usize = 4;

/// Lists everybody who was let in; false if that failed, which has been said then.
pub(crate) async fn list(json: bool, client: &Client, screen: &mut Screen) -> io::Result<bool> {
    let holders = match client.list_holders().await {
        Ok(holders) => holders,
        Err(error) => return Ok(failed(screen, &request_problem(&error))),
    };
    if json {
        screen.line(&document(&holders))?;
    } else if holders.is_empty() {
        screen.line("nobody was let in yet")?;
    }
    for holder in holders.iter().filter(|_| !json) {
        screen.line(&line(holder))?;
    }
    Ok(true)
}

/// Refuses a holder.
pub(crate) async fn revoke(id: &str, client: &Client, screen: &mut Screen) -> io::Result<bool> {
    let holder = match id.parse::<Uuid>() {
        // All of an id needs no list: whoever is not in it can be refused as well.
        Ok(id) => HolderId(id),
        Err(_) => {
            let holders = match client.list_holders().await {
                Ok(holders) => holders,
                Err(error) => return Ok(failed(screen, &request_problem(&error))),
            };
            match find(id, "holder", holders.iter().map(|holder| holder.id.0)) {
                Ok(id) => HolderId(id),
                Err(problem) => return Ok(failed(screen, &problem)),
            }
        }
    };
    match client.revoke(holder).await {
        Ok(()) => {
            screen.line(&format!("revoked {holder}; nobody accepts what it shows any more"))?;
            Ok(true)
        }
        Err(error) => Ok(failed(screen, &request_problem(&error))),
    }
}

/// Ends a join token and, if that is wanted, refuses everybody whom it admitted.
pub(crate) async fn revoke_token(
    id: &str,
    with_holders: bool,
    client: &Client,
    screen: &mut Screen,
) -> io::Result<bool> {
    let known = async { Ok((client.list_tokens().await?, client.list_holders().await?)) };
    let (tokens, holders): (Vec<TokenInfo>, _) = match known.await {
        Ok(known) => known,
        Err::<_, Error>(error) => return Ok(failed(screen, &request_problem(&error))),
    };
    // A token that is gone may still have holders.
    let gone = holders.iter().filter_map(|holder| holder.token);
    let mut ids: Vec<Uuid> = tokens.iter().map(|token| token.id).chain(gone).collect();
    ids.sort_unstable();
    ids.dedup();
    let token = match find(id, "join token", ids.into_iter()) {
        Ok(token) => token,
        Err(problem) => return Ok(failed(screen, &problem)),
    };
    let admitted: Vec<&HolderInfo> =
        holders.iter().filter(|it| it.token == Some(token) && !it.revoked).collect();
    let is_there = tokens.iter().any(|it| it.id == token);
    if !is_there && (!with_holders || admitted.is_empty()) {
        let problem = format!("join token {token} was revoked before{}", stay(&admitted));
        return Ok(failed(screen, &problem));
    }
    if is_there && let Err(error) = client.revoke_token(token).await {
        return Ok(failed(screen, &request_problem(&error)));
    }
    if !with_holders {
        screen.line(&format!("revoked token {token}{}", stay(&admitted)))?;
        for holder in admitted {
            screen.line(&format!("    {}", line(holder)))?;
        }
        return Ok(true);
    }
    screen.line(&format!("revoked token {token}"))?;
    let mut succeeded = true;
    for holder in admitted {
        let id = holder.id;
        match client.revoke(id).await {
            Ok(()) => screen.line(&format!("    revoked {}", line(holder)))?,
            Err(error) => succeeded = failed(screen, &format!("{id}: {}", request_problem(&error))),
        }
    }
    Ok(succeeded)
}

/// Who stays admitted although the token is gone, and how to change that.
fn stay(admitted: &[&HolderInfo]) -> String {
    match admitted.len() {
        0 => String::new(),
        count => format!(
            "; {count} whom it admitted {} admitted: --with-holders revokes them too",
            plural(count as u64, "stays", "stay")
        ),
    }
}

/// The id that is written so, or that alone begins so.
fn find(wanted: &str, what: &str, ids: impl Iterator<Item = Uuid>) -> Result<Uuid, String> {
    let lower = wanted.to_lowercase();
    let begins = |id: &Uuid| {
        id.to_string().starts_with(&lower) || id.simple().to_string().starts_with(&lower)
    };
    let is_id = lower.chars().all(|it| it.is_ascii_hexdigit() || it == '-');
    if !is_id || lower.len() < BEGINNING_MIN {
        return Err(format!(
            "{wanted:?} is no id: write one as it is listed, or its first characters, at least \
             {BEGINNING_MIN}"
        ));
    }
    let mut found = ids.filter(begins);
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (Some(_), Some(_)) => {
            Err(format!("more than one {what}'s id begins with {wanted}; write more of it"))
        }
        (None, _) => Err(format!("there is no {what} whose id begins with {wanted}")),
    }
}

fn kind(kind: HolderKind) -> String {
    match kind {
        HolderKind::Certificate(role) => role.to_string(),
        HolderKind::Bearer(Rights::Write) => "bearer".into(),
        HolderKind::Bearer(Rights::Read) => "bearer, reads".into(),
    }
}

fn line(holder: &HolderInfo) -> String {
    let HolderInfo { id, name, token, made_by, since_ms, ends_ms, seen_ms, .. } = holder;
    let mut line = format!("{id}  {:<13}  {}", kind(holder.kind), name.as_deref().unwrap_or("-"));
    match since_ms {
        Some(at) => line.push_str(&format!("  admitted {}", moment(*at))),
        None => line.push_str("  admitted before this list was kept"),
    }
    if let Some(token) = token {
        line.push_str(&format!(" by token {token}"));
    }
    if let Some(admin) = made_by {
        line.push_str(&format!(" by administrator {admin}"));
    }
    match ends_ms {
        Some(at) => line.push_str(&format!(", expires {}", moment(*at))),
        None => line.push_str(", never expires"),
    }
    match seen_ms {
        Some(at) => line.push_str(&format!(", last seen {}", moment(*at))),
        None => line.push_str(", never seen"),
    }
    if holder.revoked {
        line.push_str(", revoked");
    }
    line
}

fn document(holders: &[HolderInfo]) -> String {
    let entry = |holder: &HolderInfo| {
        let (kind, role) = match holder.kind {
            HolderKind::Certificate(role) => ("certificate", role.as_str()),
            HolderKind::Bearer(Rights::Read) => ("bearer", "read"),
            HolderKind::Bearer(Rights::Write) => ("bearer", "write"),
        };
        json!({
            "id": holder.id.to_string(),
            "kind": kind,
            "role": role,
            "name": holder.name,
            "token": holder.token.map(|id| id.to_string()),
            "made_by": holder.made_by.map(|id| id.to_string()),
            "since_ms": holder.since_ms,
            "ends_ms": holder.ends_ms,
            "seen_ms": holder.seen_ms,
            "revoked": holder.revoked,
        })
    };
    let holders: Vec<_> = holders.iter().map(entry).collect();
    format!("{:#}", json!({ "holders": holders }))
}

#[cfg(test)]
mod tests {
    use dkv_api::Role;

    use super::*;

    fn holder(kind: HolderKind) -> HolderInfo {
        HolderInfo {
            id: HolderId(Uuid::from_u128(0xab << 120)),
            kind,
            name: Some("ci".into()),
            token: Some(Uuid::from_u128(7)),
            made_by: None,
            since_ms: Some(1_772_368_496_000),
            ends_ms: None,
            seen_ms: None,
            revoked: true,
        }
    }

    #[test]
    fn an_id_is_found_as_it_is_printed_and_by_its_beginning() {
        let ids = [0xabcd_0001_u128 << 96, 0xabcd_0002 << 96].map(Uuid::from_u128);
        let find = |wanted: &str| find(wanted, "holder", ids.into_iter());
        for id in ids {
            assert_eq!(find(&id.to_string()), Ok(id));
            assert_eq!(find(&id.simple().to_string()), Ok(id));
            assert_eq!(find(&id.to_string()[..8].to_uppercase()), Ok(id));
        }
        assert!(find("abcd").unwrap_err().contains("more than one holder"));
        for wrong in ["1234", "abc", "", "n1\u{1b}[2J"] {
            let problem = find(wrong).unwrap_err();
            assert!(!problem.contains('\u{1b}'), "{problem}");
        }
    }

    #[test]
    fn a_holder_is_a_line_and_an_entry() {
        let listed = line(&holder(HolderKind::Certificate(Role::Reader)));
        assert_eq!(
            listed,
            "ab000000-0000-0000-0000-000000000000  reader         ci  admitted 2026-03-01 12:34:56 \
             UTC by token 00000000-0000-0000-0000-000000000007, never expires, never seen, revoked"
        );
        let text = document(&[holder(HolderKind::Bearer(Rights::Read))]);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let entry = &json["holders"][0];
        assert_eq!((&entry["kind"], &entry["role"]), (&json!("bearer"), &json!("read")));
        assert_eq!(entry["id"], "ab000000-0000-0000-0000-000000000000");
        assert_eq!((&entry["ends_ms"], &entry["revoked"]), (&json!(null), &json!(true)));
    }
}
