//! Whether a lost node may be alive: it is called at its addresses, and the registration server is
//! asked whom it has heard. The nodes whose directories were given are called as well: one that
//! answers has a newer directory elsewhere.
//!
//! A node that proves its identity is alive, and nothing else counts then. Whatever else answers
//! may be a node that this one cannot talk to, so the operator has to say that it is none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use dkv_base::id::{NodeId, Term};
use dkv_wire::limits::SERVER_FRAME_BYTES_MAX;
use dkv_wire::message::{NodeReport, ServerAnswer, ServerRequest, ServerStatus};
use dkv_wire::quic::{Close, ConnectError, Endpoint};
use dkv_wire::race::first_of;
use dkv_wire::rpc::call;
use dkv_wire::tls::Expect;
use futures::future::{join, join_all};

use super::Options;
use super::directories::{Found, Opened};
use super::error::RecoveryError;
use super::plan::Plan;
use crate::net::server_link::resolve;

/// Time that the server has to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time since the server has heard a node within which the node may be alive. A node registers
/// every ten seconds.
const HEARD_WITHIN: Duration = Duration::from_secs(25);

/// Findings about the nodes that are missing.
pub(super) struct Missing {
    pub(super) nodes: Vec<MissingNode>,
    /// The server, if there was one to ask.
    pub(super) server: Option<AskedServer>,
}

/// A node that is missing.
pub(super) struct MissingNode {
    pub(super) node: NodeId,
    pub(super) name: String,
    pub(super) addresses: BTreeSet<SocketAddr>,
    /// Something that was heard at its addresses, or of it by the server.
    pub(super) sign_of_life: Option<String>,
    /// When the server heard it last.
    pub(super) heard_ms: Option<u64>,
}

/// The answer of the registration server.
pub(super) struct AskedServer {
    pub(super) address: String,
    /// Why it did not answer.
    pub(super) problem: Option<String>,
    /// The term of the coordinator that it confirmed last.
    pub(super) term: Option<Term>,
    /// The node of that coordinator.
    pub(super) coordinator: Option<NodeId>,
}

/// A sign of life at an address.
enum Answer {
    Silence,
    /// This machine cannot call anybody.
    Unknown(String),
    /// The node proved who it is.
    Itself,
    /// Something else answers, or a node of another release.
    Something(String),
}

/// The registration server's answer, and its status if it gave one.
pub(super) type Asked = (AskedServer, Option<ServerStatus>);

/// Asks the registration servers in the name of each of the nodes, and unites what they say. `None`
/// without an address.
///
/// # Errors
/// If it says that one of them was removed.
pub(super) async fn ask(
    nodes: &[Opened],
    servers: &[String],
) -> Result<Option<Asked>, RecoveryError> {
    let mut answer: Option<Asked> = None;
    for node in nodes {
        let endpoint = Endpoint::dial_only(Some(node.credentials.clone()));
        let endpoint = endpoint.map_err(RecoveryError::System)?;
        let calls = servers.iter().map(|address| ask_server(&endpoint, address));
        let mut is_silent = true;
        for called in join_all(calls).await {
            if called.is_removed {
                let (name, path) = (node.file().name.clone(), node.path().to_owned());
                return Err(RecoveryError::Removed { name, path, server: called.asked.address });
            }
            is_silent &= called.is_silent;
            answer = Some(merged(answer, (called.asked, called.status)));
        }
        // Servers that are silent for one node are silent for the next.
        if is_silent {
            break;
        }
    }
    Ok(answer)
}

/// Unites what two servers say: a node is silent if none of them has heard it.
fn merged(one: Option<Asked>, other: Asked) -> Asked {
    let Some((mut asked, status)) = one else { return other };
    let (Some(mut status), Some(more)) = (status.clone(), other.1.as_ref()) else {
        return if status.is_some() { (asked, status) } else { other };
    };
    if other.0.term > asked.term {
        (asked.term, asked.coordinator) = (other.0.term, other.0.coordinator);
    }
    // Their clocks may differ; ages do not.
    let age = |heard_ms: u64| more.now_ms.saturating_sub(heard_ms);
    for report in &more.nodes {
        let last_report_ms = match report.last_report_ms {
            0 => 0,
            heard_ms => status.now_ms.saturating_sub(age(heard_ms)),
        };
        let report = NodeReport { last_report_ms, ..report.clone() };
        match status.nodes.iter_mut().find(|known| known.id == report.id) {
            // The later one has the address at which the node is now.
            Some(known) if known.last_report_ms >= last_report_ms => {}
            Some(known) => *known = report,
            None => status.nodes.push(report),
        }
    }
    (asked, Some(status))
}

/// Looks for the nodes that are missing, and for those whose directories are here.
///
/// # Errors
/// If one of them lives, or may live and the operator does not say otherwise.
pub(super) async fn look(
    nodes: &[Opened],
    found: &Found,
    plan: &Plan,
    options: &Options,
    server: Option<Asked>,
) -> Result<Missing, RecoveryError> {
    let credentials = nodes.first().map(|node| node.credentials.clone());
    let endpoint = Endpoint::dial_only(credentials).map_err(RecoveryError::System)?;
    let status = server.as_ref().and_then(|(_, status)| status.as_ref());
    if status.is_none() && !options.server_lost {
        let why = server.as_ref().map_or_else(
            || "no address of it was given".to_owned(),
            |(asked, _)| asked.problem.clone().unwrap_or_default(),
        );
        return Err(RecoveryError::ServerSilent(why));
    }
    let now = status.map_or(Duration::ZERO, |status| Duration::from_millis(status.now_ms));
    let mut missing: BTreeMap<NodeId, MissingNode> = BTreeMap::new();
    for node in &plan.missing {
        let listed = found.directory.nodes().get(node);
        let reported = status.and_then(|it| it.nodes.iter().find(|report| report.id == *node));
        let name = listed.map(|it| &it.name).or(reported.map(|it| &it.name));
        let addresses = listed.map(|it| it.address).into_iter();
        let heard_ms = reported.map(|it| it.last_report_ms).filter(|heard| *heard > 0);
        let since = heard_ms.map(|heard| now.saturating_sub(Duration::from_millis(heard)));
        let since = since.filter(|since| *since < HEARD_WITHIN);
        missing.insert(
            *node,
            MissingNode {
                node: *node,
                name: name.cloned().unwrap_or_else(|| node.short()),
                addresses: addresses.chain(reported.map(|it| it.address)).collect(),
                sign_of_life: since.map(|since| {
                    format!("the registration server heard it {} s ago", since.as_secs())
                }),
                heard_ms,
            },
        );
    }
    for named in &options.gone {
        let is_named = |it: &MissingNode| it.name == *named || it.node.to_string() == *named;
        if !missing.values().any(is_named) {
            return Err(RecoveryError::NotMissing(named.clone()));
        }
    }
    let calls = missing.values().flat_map(|it| it.addresses.iter().map(|at| (it.node, *at)));
    let endpoint = &endpoint;
    let answers = calls.map(|(node, at)| async move { (node, at, dial(endpoint, node, at).await) });
    let answers = join_all(answers.collect::<Vec<_>>());
    let (answers, copied) = join(answers, check_copied(endpoint, nodes, found)).await;
    copied?;
    for (node, address, answer) in answers {
        let Some(it) = missing.get_mut(&node) else { continue };
        match answer {
            Answer::Silence => {}
            Answer::Unknown(why) => {
                it.sign_of_life = Some(format!("it cannot be called from here ({why})"));
            }
            Answer::Itself => {
                let (name, address) = (it.name.clone(), address.to_string());
                return Err(RecoveryError::Alive { name, address });
            }
            Answer::Something(why) => {
                it.sign_of_life = Some(format!("something answers at its address ({why})"));
            }
        }
    }
    let is_gone = |it: &MissingNode| {
        options.gone.iter().any(|named| it.name == *named || it.node.to_string() == *named)
    };
    let mut missing: Vec<MissingNode> = missing.into_values().collect();
    missing.sort_by(|one, other| one.name.cmp(&other.name));
    if let Some(it) = missing.iter().find(|it| it.sign_of_life.is_some() && !is_gone(it)) {
        let (name, why) = (it.name.clone(), it.sign_of_life.clone().unwrap_or_default());
        return Err(RecoveryError::MayLive { name, why });
    }
    let server = server.map(|(asked, _)| asked);
    Ok(Missing { nodes: missing, server })
}

async fn dial(endpoint: &Endpoint, node: NodeId, address: SocketAddr) -> Answer {
    match endpoint.connect(address, Expect::Node(node)).await {
        Ok(connection) => {
            Close::Done.close(&connection, "it lives");
            Answer::Itself
        }
        Err(ConnectError::Unreachable { .. }) => Answer::Silence,
        Err(ConnectError::Local(why)) => Answer::Unknown(why),
        Err(error) => Answer::Something(error.to_string()),
    }
}

/// Checks that none of the nodes runs elsewhere: its directory here would be an old one.
async fn check_copied(
    endpoint: &Endpoint,
    nodes: &[Opened],
    found: &Found,
) -> Result<(), RecoveryError> {
    let calls = nodes.iter().filter_map(|node| {
        let address = found.directory.nodes().get(&node.id())?.address;
        Some(async move { (node, address, dial(endpoint, node.id(), address).await) })
    });
    for (node, address, answer) in join_all(calls.collect::<Vec<_>>()).await {
        if matches!(answer, Answer::Itself) {
            let (name, path) = (node.file().name.clone(), node.path().to_owned());
            return Err(RecoveryError::Copied { name, address: address.to_string(), path });
        }
    }
    Ok(())
}

/// The answer of one server to one node.
struct Called {
    asked: AskedServer,
    status: Option<ServerStatus>,
    /// Whether it says that the node was removed.
    is_removed: bool,
    /// Whether nothing answers there.
    is_silent: bool,
}

async fn ask_server(endpoint: &Endpoint, address: &str) -> Called {
    let (mut is_removed, mut is_silent) = (false, false);
    let asked = async {
        let addresses = resolve(address).await.map_err(|error| {
            is_silent = true;
            error.to_string()
        })?;
        let connect = |at| endpoint.connect(at, Expect::Server);
        let connection = first_of(&addresses, connect).await.map_err(|errors| {
            let is_removal = |error| matches!(error, &ConnectError::Removed { .. });
            is_removed = errors.iter().any(is_removal);
            let is_silence = |error| matches!(error, &ConnectError::Unreachable { .. });
            is_silent = errors.iter().all(is_silence);
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            errors.join("; ")
        })?;
        let request = ServerRequest::Status;
        let answer =
            call(&connection, None::<&()>, &request, SERVER_FRAME_BYTES_MAX, PATIENCE).await;
        if let Some(closed) = connection.close_reason() {
            is_removed = matches!(
                ConnectError::from_lost(connection.remote_address(), &closed),
                ConnectError::Removed { .. }
            );
        }
        Close::Done.close(&connection, "the question is answered");
        match answer {
            Ok(ServerAnswer::Status(status)) => Ok(*status),
            Ok(ServerAnswer::Refused(refusal)) => Err(refusal.to_string()),
            Ok(_) => Err("it gave an unexpected answer".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    };
    let (status, problem) = match asked.await {
        Ok(status) => (Some(status), None),
        Err(problem) => (None, Some(problem)),
    };
    let confirmed = status.as_ref().and_then(|status| status.coordinator);
    let asked = AskedServer {
        address: address.to_owned(),
        problem,
        term: confirmed.map(|(_, term)| term),
        coordinator: confirmed.map(|(node, _)| node),
    };
    Called { asked, status, is_removed, is_silent }
}

#[cfg(test)]
mod tests {
    use dkv_base::id::{HolderId, NetworkId};
    use dkv_wire::network::{NodeState, Settings};
    use uuid::Uuid;

    use super::*;

    fn said(address: &str, now_ms: u64, term: u64, nodes: Vec<NodeReport>) -> Asked {
        let asked = AskedServer {
            address: address.into(),
            problem: None,
            term: Some(Term(term)),
            coordinator: None,
        };
        let status = ServerStatus {
            network: NetworkId(Uuid::nil()),
            version: String::new(),
            uptime_ms: 0,
            bootstrap: None,
            coordinator: None,
            confirmed_at_ms: None,
            report_age_ms: None,
            nodes,
            view: None,
            settings: Settings::default(),
            runs: Vec::new(),
            now_ms,
            server: HolderId::random(),
            books: None,
        };
        (asked, Some(status))
    }

    fn heard(id: NodeId, port: u16, last_report_ms: u64) -> NodeReport {
        NodeReport {
            id,
            name: "n".into(),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            region: None,
            coordinator: false,
            state: NodeState::Joining,
            last_report_ms,
        }
    }

    #[test]
    fn what_the_servers_have_heard_is_united_by_age() {
        let [both, new, unheard] = [NodeId::random(), NodeId::random(), NodeId::random()];
        // The second server's clock is 1000 s behind.
        let first = said("a", 2_000_000, 3, vec![heard(both, 1, 1_900_000)]);
        let nodes = vec![heard(both, 2, 990_000), heard(new, 3, 995_000), heard(unheard, 4, 0)];
        let (asked, status) = merged(Some(first), said("b", 1_000_000, 5, nodes));
        assert_eq!(asked.term, Some(Term(5)));
        let found: Vec<_> = status.unwrap().nodes;
        let found: Vec<_> =
            found.iter().map(|it| (it.id, it.address.port(), it.last_report_ms)).collect();
        let expected = [(both, 2, 1_990_000), (new, 3, 1_995_000), (unheard, 4, 0)];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_server_that_is_silent_takes_nothing_from_what_another_says() {
        let node = NodeId::random();
        let silent = || {
            let problem = Some("silent".to_owned());
            let asked = AskedServer { address: "b".into(), problem, term: None, coordinator: None };
            (asked, None)
        };
        let said = || said("a", 9, 3, vec![heard(node, 1, 5)]);
        for (asked, status) in [merged(Some(said()), silent()), merged(Some(silent()), said())] {
            assert_eq!((&*asked.address, status.unwrap().nodes.len()), ("a", 1));
        }
    }
}
