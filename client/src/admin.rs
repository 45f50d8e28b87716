//! Administration of a network: tokens and nodes.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use dkv_api::{
    BearerLife, Client, Error, NodeInfo, Rights, Role, RunChoice, TokenInfo, TokenOptions,
};
use dkv_console::Console;
use dkv_console::problem::{Abort, Effect, Failure, Problem};
use dkv_console::units::{self, timestamp};
use dkv_wire::limits::BEARER_LIFE;
use dkv_wire::token::Token;
use serde_json::json;

use crate::api_problems::request_problem;
use crate::cli::{RemoveArgs, TokenAction};
use crate::confirm::confirm;
use crate::holders;
use crate::json_results;

/// Carries out a subcommand of `token`.
pub(crate) async fn token(
    action: &TokenAction,
    client: &Client,
    console: &mut Console,
) -> Result<(), Abort> {
    match action {
        TokenAction::Create { http: true, read_only, life, never_expires, name, user, .. } => {
            let rights = if *read_only { Rights::Read } else { Rights::Write };
            let life = match life {
                _ if *never_expires => BearerLife::Endless,
                Some(life) => BearerLife::Seconds(life.as_secs().max(1)),
                None => BearerLife::Usual,
            };
            let created = client.create_bearer_for(rights, life, name.clone(), *user).await;
            let (token, holder) = created.map_err(|error| request_problem(&error))?;
            let lasts = match life {
                BearerLife::Endless => None,
                BearerLife::Seconds(seconds) => Some(Duration::from_secs(seconds)),
                BearerLife::Usual => Some(BEARER_LIFE),
            };
            let told = console.result(&token, || {
                json!({
                    "command": "token create",
                    "token": token,
                    "holder": holder.to_string(),
                    "kind": "http",
                    "rights": if *read_only { "read" } else { "write" },
                    "name": name,
                    "user": user.map(|user| user.to_string()),
                    "life_ms": lasts.map(|life| life.as_millis() as u64),
                })
            });
            if let Err(error) = told {
                return Err(lost(error, "bearer token", &holder, client.revoke(holder).await));
            }
            console.note(&format!(
                "send it as Authorization: Bearer TOKEN; it allows its bearer to {} values {}. It \
                 is shown only once; dkv revoke {holder} revokes it",
                if *read_only { "read" } else { "read and write" },
                lasts.map_or("until it is revoked".into(), |life| format!(
                    "for {}",
                    units::duration(life)
                )),
            ));
        }
        TokenAction::Create { role, read_only, life, uses, name, user, .. } => {
            let role = match (*role, *read_only) {
                (Role::Client | Role::Reader, true) => Role::Reader,
                (role, false) => role,
                (role, true) => {
                    let problem = format!(
                        "--read-only applies to clients and to --http: a {role} cannot be read-only"
                    );
                    return Err(Problem::usage(problem).into());
                }
            };
            let (life, uses, user) = (*life, *uses, *user);
            let options = TokenOptions { life, uses, name: name.clone(), user };
            let created = client.create_token_with(role, options).await;
            let token = created.map_err(|error| request_problem(&error))?;
            let id = token.parse::<Token>().ok().map(|token| token.id);
            let told = console.result(&token, || {
                let id = id.map(|id| id.to_string());
                json!({
                    "command": "token create",
                    "token": token,
                    "id": id,
                    "kind": "join",
                    "role": role.as_str(),
                    "name": name,
                    "user": user.map(|user| user.to_string()),
                    "life_ms": life.map(|life| life.as_millis() as u64),
                    "uses_max": uses,
                })
            });
            if let (Err(error), Some(id)) = (&told, id) {
                let error = io::Error::new(error.kind(), error.to_string());
                return Err(lost(error, "join token", &id, client.revoke_token(id).await));
            }
            told?;
            console.note(&format!(
                "this is a {role} token; keep it in a file that only its bearer can read, and \
                 pass that file with --token-file"
            ));
        }
        TokenAction::List { .. } => {
            let tokens = client.list_tokens().await.map_err(|error| request_problem(&error))?;
            console.result(&list(&tokens), || {
                let all: Vec<_> = tokens.iter().map(json_results::token).collect();
                json!({ "command": "token list", "tokens": all })
            })?;
        }
        TokenAction::Revoke { id, with_holders, .. } => {
            holders::revoke_token(id, *with_holders, client, console).await?;
        }
    }
    Ok(())
}

/// Explains what became of a token whose text could not be printed, and so is lost.
fn lost(error: io::Error, what: &str, id: &impl Display, revoked: Result<(), Error>) -> Abort {
    let problem = match revoked {
        Ok(()) => Problem::failed(format!(
            "cannot write to standard output: {error}; the new {what} {id} was revoked, because \
             its text is lost"
        )),
        Err(why) => Problem::failed(format!(
            "cannot write to standard output: {error}; a {what} was created, but its text is lost: \
             revoke {id} ({why})"
        ))
        .with_effect(Effect::Done),
    };
    problem.with("id", id.to_string()).into()
}

/// Removes a node from the network: in good order or, for one that is not to be trusted, at once.
pub(crate) async fn remove(
    which: &RemoveArgs,
    client: &Client,
    console: &mut Console,
) -> Result<(), Abort> {
    let view = client.refresh().await.map_err(|error| request_problem(&error))?;
    let found = find(&which.node, &view.nodes)?;
    let (done, then) = if which.at_once {
        let effect =
            format!("refuses {} from now on; writes that only this node has are lost", found.name);
        confirm(&effect, &found.name, which.yes.as_deref(), console).await?;
        let then = "is refused from now on; it is gone once other nodes have taken over its \
                    replicas; see status";
        (client.expel_node(found.id).await, then)
    } else {
        let then = "is leaving: its replicas move to other nodes, then it is refused permanently; \
                    see status";
        (client.remove_node(found.id).await, then)
    };
    done.map_err(|error| request_problem(&error))?;
    console.changed(&format!("node {} ({}) {then}", found.name, found.id), || {
        json!({
            "command": "remove",
            "node": found.id.to_string(),
            "name": found.name,
            "at_once": which.at_once,
        })
    })?;
    Ok(())
}

/// Chooses the run of a node that continues.
pub(crate) async fn keep(
    node: &str,
    run: RunChoice,
    client: &Client,
    console: &mut Console,
) -> Result<(), Abort> {
    // Only the server knows a node that is held back and has no other nodes beside it.
    let server = client.status().await.server.map_err(|error| {
        Problem::new(Failure::Unavailable, format!("the server does not answer: {error}"))
    })?;
    let registered = server.nodes.into_iter().map(|node| NodeInfo {
        id: node.id,
        name: node.name,
        address: node.address,
        region: node.region,
        state: node.state,
    });
    let registered: Vec<NodeInfo> = registered.collect();
    let found = find(node, &registered)?;
    client.keep_run(found.id, run).await.map_err(|error| request_problem(&error))?;
    let (which, value) = match run {
        RunChoice::Address(address) => {
            (format!("the process at {address}"), json!({ "address": address.to_string() }))
        }
        RunChoice::Start(start) => (format!("start {start}"), json!({ "start": start })),
    };
    let text =
        format!("{which} of node {} continues; every other process of this node ends", found.name);
    console.changed(&text, || {
        json!({
            "command": "keep",
            "node": found.id.to_string(),
            "name": found.name,
            "kept": value,
        })
    })?;
    Ok(())
}

/// Finds a node by its name, its id, or a beginning that only its id has.
///
/// # Errors
/// No node matches, or several do.
pub(crate) fn find<'a>(wanted: &str, nodes: &'a [NodeInfo]) -> Result<&'a NodeInfo, Problem> {
    let not_found = |why: String| Problem::new(Failure::NotFound, why);
    let exact = nodes.iter().find(|node| node.name == wanted || node.id.to_string() == wanted);
    if let Some(node) = exact {
        return Ok(node);
    }
    let wanted_id = wanted.to_lowercase();
    let begins =
        |node: &&NodeInfo| wanted.len() >= 4 && node.id.to_string().starts_with(&wanted_id);
    let mut beginning = nodes.iter().filter(begins);
    match (beginning.next(), beginning.next()) {
        (Some(node), None) => Ok(node),
        (Some(_), Some(_)) => {
            Err(not_found(format!("more than one node id begins with {wanted}; give more of it")))
        }
        (None, _) => {
            let mut names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
            names.sort_by_key(|name| (name.len(), *name));
            Err(not_found(format!("there is no node {wanted}; the nodes are {}", names.join(", "))))
        }
    }
}

fn list(tokens: &[TokenInfo]) -> String {
    if tokens.is_empty() {
        return "there are no tokens".into();
    }
    let line = |token: &TokenInfo| {
        let used = match token.used {
            0 => "never used".to_owned(),
            1 => "used once".to_owned(),
            times => format!("used {times} times"),
        };
        let uses = token.uses.map(|uses| format!(" of {uses}")).unwrap_or_default();
        let ends = match token.expires_ms {
            Some(at) => format!("expires {}", timestamp(at)),
            None => "never expires".into(),
        };
        let name = token.name.as_deref().unwrap_or("-");
        let admitted: Vec<String> =
            token.admitted.iter().map(|holder| format!("\n    admitted {holder}")).collect();
        let (id, role) = (token.id, token.role);
        let user = token.user.map(|user| format!("user {user}, ")).unwrap_or_default();
        format!("{id}  {role:<6}  {name}  {user}{used}{uses}, {ends}{}", admitted.concat())
    };
    tokens.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use dkv_api::{HolderId, NodeId, NodeState, Uuid};

    use super::*;

    fn node(name: &str, id: u128) -> NodeInfo {
        NodeInfo {
            id: NodeId(Uuid::from_u128(id << 96)),
            name: name.into(),
            address: "127.0.0.1:1".parse().unwrap(),
            region: None,
            state: NodeState::Live,
        }
    }

    #[test]
    fn a_node_is_found_by_name_id_and_beginning_of_its_id() {
        let nodes = [node("n1", 0xabcd_0001), node("n2", 0xabcd_0002), node("abcd", 0x1234_5678)];
        assert_eq!(find("n2", &nodes).unwrap().name, "n2");
        assert_eq!(find("ABCD0001", &nodes).unwrap().name, "n1");
        assert_eq!(find("abcd", &nodes).unwrap().name, "abcd");
        assert_eq!(find(&nodes[1].id.to_string(), &nodes).unwrap().name, "n2");
        assert!(find("abcd0", &nodes).unwrap_err().message.contains("more than one"));
        assert!(find("123", &nodes).unwrap_err().message.contains("the nodes are n1, n2, abcd"));
    }

    #[test]
    fn tokens_are_listed_with_whom_they_admitted() {
        let token = TokenInfo {
            id: Uuid::from_u128(1),
            role: Role::Node,
            user: None,
            name: None,
            expires_ms: Some(1_772_368_496_000),
            used: 1,
            uses: None,
            admitted: vec![HolderId(Uuid::from_u128(2))],
        };
        assert_eq!(
            list(std::slice::from_ref(&token)),
            "00000000-0000-0000-0000-000000000001  node    -  used once, expires 2026-03-01 \
             12:34:56 UTC\n    admitted 00000000-0000-0000-0000-000000000002"
        );
        let mut never = token;
        (never.expires_ms, never.uses, never.used) = (None, Some(3), 2);
        assert!(list(&[never]).contains("  used 2 times of 3, never expires"));
    }
}
