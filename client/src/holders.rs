//! Lists and revokes the holders of certificates and bearer tokens.

use dkv_api::{Client, HolderId, HolderInfo, HolderKind, Rights, Uuid};
use dkv_console::Console;
use dkv_console::problem::{self, Abort, Failure, Problem};
use dkv_console::units::{plural, timestamp};
use serde_json::{Value, json};

use crate::api_problems::request_problem;

/// Fewest characters of an id that may stand for the whole.
const PREFIX_MIN: usize = 4;

/// Lists all holders, as JSON if requested.
pub(crate) async fn list(json: bool, client: &Client, console: &mut Console) -> Result<(), Abort> {
    let holders = client.list_holders().await.map_err(|error| request_problem(&error))?;
    if json && !console.json {
        console.document(&document(&holders))?;
        console.flush()?;
        return Ok(());
    }
    let lines: Vec<String> = holders.iter().map(line).collect();
    let text =
        if lines.is_empty() { "no one has been admitted yet".into() } else { lines.join("\n") };
    console.result(&text, || document(&holders))?;
    Ok(())
}

/// Revokes a holder.
pub(crate) async fn revoke(id: &str, client: &Client, console: &mut Console) -> Result<(), Abort> {
    let holder = match id.parse::<Uuid>() {
        // A whole id needs no list, and may name a holder that is not listed.
        Ok(id) => HolderId(id),
        Err(_) => {
            let holders = client.list_holders().await.map_err(|error| request_problem(&error))?;
            HolderId(find(id, "holder", holders.iter().map(|holder| holder.id.0))?)
        }
    };
    client.revoke(holder).await.map_err(|error| request_problem(&error))?;
    console.changed(
        &format!("revoked {holder}; the network refuses it from now on"),
        || json!({ "command": "revoke", "holder": holder.to_string() }),
    )?;
    Ok(())
}

/// Revokes a join token and, if requested, all holders that it admitted.
pub(crate) async fn revoke_token(
    id: &str,
    with_holders: bool,
    client: &Client,
    console: &mut Console,
) -> Result<(), Abort> {
    let tokens = client.list_tokens().await.map_err(|error| request_problem(&error))?;
    let holders = client.list_holders().await.map_err(|error| request_problem(&error))?;
    // A token that no longer exists may still have holders.
    let gone = holders.iter().filter_map(|holder| holder.token);
    let mut ids: Vec<Uuid> = tokens.iter().map(|token| token.id).chain(gone).collect();
    ids.sort_unstable();
    ids.dedup();
    let token = find(id, "join token", ids.into_iter())?;
    let mut admitted = admitted_by(token, &holders);
    let is_there = tokens.iter().any(|it| it.id == token);
    if !is_there && (!with_holders || admitted.is_empty()) {
        let problem =
            format!("join token {token} was already revoked{}", still_admitted(&admitted));
        return Err(Problem::failed(problem).into());
    }
    let latest;
    if is_there {
        client.revoke_token(token).await.map_err(|error| request_problem(&error))?;
        // The first list may have come from a server whose books were behind. The token admits
        // no one any more, so this one has all that it admitted.
        latest = client.list_holders().await.map_err(|error| request_problem(&error))?;
        admitted = admitted_by(token, &latest);
    }
    let (mut lines, mut revoked, mut worst) = (Vec::new(), Vec::new(), None);
    for holder in &admitted {
        if !with_holders {
            lines.push(format!("\n    {}", line(holder)));
            continue;
        }
        match client.revoke(holder.id).await {
            Ok(()) => {
                lines.push(format!("\n    revoked {}", line(holder)));
                revoked.push(holder.id.to_string());
            }
            Err(error) => {
                let problem = request_problem(&error).prefixed(&format!("{}: ", holder.id));
                console.problem(&problem);
                worst = problem::worst(worst, Some(problem.failure));
            }
        }
    }
    let remain = if with_holders { String::new() } else { still_admitted(&admitted) };
    let text = format!("revoked token {token}{remain}{}", lines.concat());
    console.changed(&text, || {
        let all = admitted.iter().map(|holder| holder.id.to_string());
        json!({
            "command": "token revoke",
            "id": token.to_string(),
            "revoked": revoked,
            "still_admitted": all.filter(|id| !revoked.contains(id)).collect::<Vec<_>>(),
        })
    })?;
    worst.map_or(Ok(()), |failure| Err(Abort::Reported(failure)))
}

/// Returns the holders that a token has admitted and that were not revoked.
fn admitted_by(token: Uuid, holders: &[HolderInfo]) -> Vec<&HolderInfo> {
    holders.iter().filter(|it| it.token == Some(token) && !it.revoked).collect()
}

/// Says how many holders remain admitted without the token, and how to revoke them.
fn still_admitted(admitted: &[&HolderInfo]) -> String {
    match admitted.len() {
        0 => String::new(),
        count => format!(
            "; {count} {} that it admitted remain admitted: --with-holders revokes them too",
            plural(count as u64, "holder", "holders")
        ),
    }
}

/// Returns the id with this text or beginning, if there is exactly one.
fn find(wanted: &str, what: &str, ids: impl Iterator<Item = Uuid>) -> Result<Uuid, Problem> {
    let lower = wanted.to_lowercase();
    let begins = |id: &Uuid| {
        id.to_string().starts_with(&lower) || id.simple().to_string().starts_with(&lower)
    };
    let is_id = lower.chars().all(|it| it.is_ascii_hexdigit() || it == '-');
    if !is_id || lower.len() < PREFIX_MIN {
        return Err(Problem::usage(format!(
            "{wanted:?} is not an id: give an id as listed, or at least its first \
             {PREFIX_MIN} characters"
        )));
    }
    let mut found = ids.filter(begins);
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (Some(_), Some(_)) => {
            let why = format!(
                "more than one {what} has an id that begins with {wanted}; give more of it"
            );
            Err(Problem::usage(why))
        }
        (None, _) => {
            let why = format!("no {what} has an id that begins with {wanted}");
            Err(Problem::new(Failure::NotFound, why))
        }
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
        Some(at) => line.push_str(&format!("  admitted {}", timestamp(*at))),
        None => line.push_str("  admitted before this list was kept"),
    }
    if let Some(user) = holder.user {
        line.push_str(&format!(" as user {user}"));
    }
    if let Some(token) = token {
        line.push_str(&format!(" by token {token}"));
    }
    if let Some(admin) = made_by {
        line.push_str(&format!(" by administrator {admin}"));
    }
    match ends_ms {
        Some(at) => line.push_str(&format!(", expires {}", timestamp(*at))),
        None => line.push_str(", never expires"),
    }
    // The server sees who connects to it. Gateways report the use of bearer tokens, and any client
    // may say that it is one.
    match (seen_ms, holder.kind) {
        (Some(at), HolderKind::Bearer(_)) => {
            line.push_str(&format!(", last used {} as reported", timestamp(*at)));
        }
        (None, HolderKind::Bearer(_)) => line.push_str(", no use reported"),
        (Some(at), _) => line.push_str(&format!(", last seen {}", timestamp(*at))),
        (None, _) => line.push_str(", never seen"),
    }
    if holder.revoked {
        line.push_str(", revoked");
    }
    line
}

fn document(holders: &[HolderInfo]) -> Value {
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
            "user": holder.user.map(|user| user.to_string()),
            "token": holder.token.map(|id| id.to_string()),
            "made_by": holder.made_by.map(|id| id.to_string()),
            "since_at_ms": holder.since_ms,
            "ends_at_ms": holder.ends_ms,
            "seen_at_ms": holder.seen_ms,
            "revoked": holder.revoked,
        })
    };
    let holders: Vec<_> = holders.iter().map(entry).collect();
    json!({ "command": "holders", "holders": holders })
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
            user: None,
            token: Some(Uuid::from_u128(7)),
            made_by: None,
            since_ms: Some(1_772_368_496_000),
            ends_ms: None,
            seen_ms: None,
            revoked: true,
        }
    }

    #[test]
    fn an_id_is_found_in_full_and_by_its_beginning() {
        let ids = [0xabcd_0001_u128 << 96, 0xabcd_0002 << 96].map(Uuid::from_u128);
        let find = |wanted: &str| find(wanted, "holder", ids.into_iter());
        for id in ids {
            assert_eq!(find(&id.to_string()), Ok(id));
            assert_eq!(find(&id.simple().to_string()), Ok(id));
            assert_eq!(find(&id.to_string()[..8].to_uppercase()), Ok(id));
        }
        assert!(find("abcd").unwrap_err().message.contains("more than one holder"));
        for wrong in ["1234", "abc", "", "n1\u{1b}[2J"] {
            let problem = find(wrong).unwrap_err().message;
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
        let bearer = holder(HolderKind::Bearer(Rights::Read));
        assert!(line(&bearer).contains(", no use reported,"), "{}", line(&bearer));
        let used = line(&HolderInfo { seen_ms: bearer.since_ms, ..bearer });
        assert!(used.contains(", last used 2026-03-01 12:34:56 UTC as reported,"), "{used}");
        let json = document(&[holder(HolderKind::Bearer(Rights::Read))]);
        let entry = &json["holders"][0];
        assert_eq!((&entry["kind"], &entry["role"]), (&json!("bearer"), &json!("read")));
        assert_eq!(entry["id"], "ab000000-0000-0000-0000-000000000000");
        assert_eq!((&entry["ends_at_ms"], &entry["revoked"]), (&json!(null), &json!(true)));
    }
}
