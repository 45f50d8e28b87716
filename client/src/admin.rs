//! Managing a network: tokens, nodes, certificates.

use std::io;
use std::time::Duration;

use dkv_api::{BearerLife, Client, NodeInfo, Rights, Role, RunChoice, TokenInfo};
use dkv_wire::limits::BEARER_LIFE;

use crate::cli::TokenAction;
use crate::holders;
use crate::human::{self, moment};
use crate::run::request_problem;
use crate::screen::Screen;

/// Does something with tokens; false if that failed, which has been said then.
pub(crate) async fn token(
    action: &TokenAction,
    client: &Client,
    screen: &mut Screen,
) -> io::Result<bool> {
    match action {
        TokenAction::Create { http: true, read_only, life, never_expires, name, .. } => {
            let rights = if *read_only { Rights::Read } else { Rights::Write };
            let life = match life {
                _ if *never_expires => BearerLife::Endless,
                Some(life) => BearerLife::Seconds(life.as_secs().max(1)),
                None => BearerLife::Usual,
            };
            match client.create_bearer_with(rights, life, name.clone()).await {
                Ok((token, holder)) => {
                    screen.line(&token)?;
                    screen.note(&format!(
                        "for Authorization: Bearer TOKEN; whoever has it {} values{}. Its text is \
                         not kept; dkv ADDRESS revoke {holder} ends it",
                        if *read_only { "reads" } else { "reads and writes" },
                        match life {
                            BearerLife::Endless => " until it is revoked".to_owned(),
                            BearerLife::Seconds(s) => {
                                format!(" for {}", human::time(Duration::from_secs(s)))
                            }
                            BearerLife::Usual => format!(" for {}", human::time(BEARER_LIFE)),
                        }
                    ));
                    Ok(true)
                }
                Err(error) => Ok(failed(screen, &request_problem(&error))),
            }
        }
        TokenAction::Create { role, read_only, life, uses, name, .. } => {
            let role = match (*role, *read_only) {
                (Role::Client | Role::Reader, true) => Role::Reader,
                (role, false) => role,
                (role, true) => {
                    let problem = format!(
                        "--read-only is for clients and for --http: there is no {role} that only \
                         reads"
                    );
                    return Ok(failed(screen, &problem));
                }
            };
            match client.create_named_token(role, *life, *uses, name.clone()).await {
                Ok(token) => {
                    screen.line(&token)?;
                    screen.note(&format!(
                        "a token for a {role}; keep it in a file that only its bearer can read, \
                         and name that with --token-file"
                    ));
                    Ok(true)
                }
                Err(error) => Ok(failed(screen, &request_problem(&error))),
            }
        }
        TokenAction::List { .. } => match client.list_tokens().await {
            Ok(tokens) => {
                screen.line(&list(&tokens))?;
                Ok(true)
            }
            Err(error) => Ok(failed(screen, &request_problem(&error))),
        },
        TokenAction::Revoke { id, with_holders, .. } => {
            holders::revoke_token(id, *with_holders, client, screen).await
        }
    }
}

/// Removes a node.
pub(crate) async fn remove(node: &str, client: &Client, screen: &mut Screen) -> io::Result<bool> {
    let view = match client.refresh().await {
        Ok(view) => view,
        Err(error) => return Ok(failed(screen, &request_problem(&error))),
    };
    let found = match find(node, &view.nodes) {
        Ok(found) => found,
        Err(problem) => return Ok(failed(screen, &problem)),
    };
    match client.remove_node(found.id).await {
        Ok(()) => {
            screen.line(&format!(
                "node {} ({}) is leaving: others take its places, and then it is refused for good; \
                 see status",
                found.name, found.id
            ))?;
            Ok(true)
        }
        Err(error) => Ok(failed(screen, &request_problem(&error))),
    }
}

/// Says which run of a node goes on.
pub(crate) async fn keep(
    node: &str,
    run: RunChoice,
    client: &Client,
    screen: &mut Screen,
) -> io::Result<bool> {
    // The server's books: a node that is alone and held back has nobody else to speak for it.
    let id = match client.status().await.server {
        Ok(status) => {
            let registered = status.nodes.into_iter().map(|node| NodeInfo {
                id: node.id,
                name: node.name,
                address: node.address,
                region: node.region,
                state: node.state,
            });
            match find(node, &registered.collect::<Vec<_>>()) {
                Ok(found) => found.id,
                Err(problem) => return Ok(failed(screen, &problem)),
            }
        }
        Err(error) => {
            return Ok(failed(screen, &format!("the server does not answer: {error}")));
        }
    };
    match client.keep_run(id, run).await {
        Ok(()) => {
            let which = match run {
                RunChoice::Address(address) => format!("the process at {address}"),
                RunChoice::Start(start) => format!("start {start}"),
            };
            screen.line(&format!("node {node}: {which} goes on; any other ends"))?;
            Ok(true)
        }
        Err(error) => Ok(failed(screen, &request_problem(&error))),
    }
}

pub(crate) fn failed(screen: &mut Screen, problem: &str) -> bool {
    screen.error(problem);
    false
}

/// The node of that name or id, or whose id alone begins so.
pub(crate) fn find<'a>(wanted: &str, nodes: &'a [NodeInfo]) -> Result<&'a NodeInfo, String> {
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
            Err(format!("more than one node's id begins with {wanted}; write more of it"))
        }
        (None, _) => {
            let mut names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
            names.sort_by_key(|name| (name.len(), *name));
            Err(format!("there is no node {wanted}; the nodes are {}", names.join(", ")))
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
            more => format!("used {more} times"),
        };
        let uses = token.uses.map(|uses| format!(" of {uses}")).unwrap_or_default();
        let ends = match token.expires_ms {
            Some(at) => format!("expires {}", moment(at)),
            None => "never expires".into(),
        };
        let name = token.name.as_deref().unwrap_or("-");
        let admitted: Vec<String> =
            token.admitted.iter().map(|holder| format!("\n    admitted {holder}")).collect();
        let (id, role) = (token.id, token.role);
        format!("{id}  {role:<6}  {name}  {used}{uses}, {ends}{}", admitted.concat())
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
    fn a_node_is_found_by_name_id_and_beginning() {
        let nodes = [node("n1", 0xabcd_0001), node("n2", 0xabcd_0002), node("abcd", 0x1234_5678)];
        assert_eq!(find("n2", &nodes).unwrap().name, "n2");
        assert_eq!(find("ABCD0001", &nodes).unwrap().name, "n1");
        assert_eq!(find("abcd", &nodes).unwrap().name, "abcd");
        assert_eq!(find(&nodes[1].id.to_string(), &nodes).unwrap().name, "n2");
        assert!(find("abcd0", &nodes).unwrap_err().contains("more than one"));
        assert!(find("123", &nodes).unwrap_err().contains("the nodes are n1, n2, abcd"));
    }

    #[test]
    fn tokens_are_listed_with_whom_they_admitted() {
        let token = TokenInfo {
            id: Uuid::from_u128(1),
            role: Role::Node,
            name: None,
            expires_ms: Some(1_772_368_496_000),
            used: 1,
            uses: None,
            admitted: vec![HolderId(Uuid::from_u128(2))],
        };
        assert_eq!(
            list(&[token]),
            "00000000-0000-0000-0000-000000000001  node    -  used once, expires 2026-03-01 \
             12:34:56 UTC\n    admitted 00000000-0000-0000-0000-000000000002"
        );
    }
}
