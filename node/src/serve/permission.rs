//! Who may send which request, and when this node takes it.

use std::sync::Arc;

use dkv_wire::identity::{Identity, Role};
use dkv_wire::message::{Refusal, Request, RequestBody};

use super::data::may_pass_on;
use super::needs::Needs;
use super::rights;
use crate::net::incarnations::Incarnations;
use crate::node::Node;

/// Checks that this node takes a request of a peer.
///
/// # Errors
/// The refusal to answer with.
pub(super) fn check(node: &Node, peer: Identity, request: &Request) -> Result<(), Refusal> {
    may_ask(node, peer, request)?;
    if let Some(stranger) =
        peer.as_node().filter(|id| needs_listing(&request.body) && !node.replicas().is_listed(*id))
    {
        // A node that has just joined may not be in the directory here yet: the node, or the sender
        // of the request, asks again.
        let why = "a node that the directory does not name is not served";
        node.peers().denials().note(stranger, why);
        return Err(Refusal::Unavailable(why.into()));
    }
    if let Some(why) = held_back(node.incarnations(), &request.body) {
        return Err(Refusal::Unavailable(why.to_string()));
    }
    match &request.body {
        RequestBody::Propose { command, .. } if request.forward => may_pass_on(peer, command),
        _ => Ok(()),
    }
}

/// Checks that a peer's role and its user's rights allow a request.
fn may_ask(node: &Node, peer: Identity, request: &Request) -> Result<(), Refusal> {
    allowed(peer, &request.body)?;
    rights::check(node, peer, request)
}

/// Returns why this node refuses a request, if its data directory may be a copy.
fn held_back(incarnations: &Incarnations, body: &RequestBody) -> Option<Arc<str>> {
    match body {
        RequestBody::Status | RequestBody::Diagnose | RequestBody::Log(_) => None,
        RequestBody::View
        | RequestBody::Placement { .. }
        | RequestBody::Keyspaces
        | RequestBody::Policies
        | RequestBody::Read { .. }
        | RequestBody::Scan { .. }
        | RequestBody::ReadAt { .. }
        | RequestBody::ScanAt { .. }
        | RequestBody::Range { .. }
        | RequestBody::History { .. }
        | RequestBody::Leases { .. }
        | RequestBody::LeaseInfo { .. }
        | RequestBody::KeyTtl { .. }
        | RequestBody::Committed { .. }
        | RequestBody::Reach { .. }
        | RequestBody::Departed(_)
        | RequestBody::Measures(_) => incarnations.held(),
        _ => incarnations.doubted(),
    }
}

/// Checks that a peer's role allows a request.
fn allowed(peer: Identity, body: &RequestBody) -> Result<(), Refusal> {
    let role = peer.role;
    let needed = match (Needs::of(body), role) {
        (Needs::Nothing, _)
        | (Needs::Read | Needs::Write, Role::Client | Role::Admin | Role::Node)
        | (Needs::Read, Role::Reader) => return Ok(()),
        (Needs::Role(needed), _) if needed == role => return Ok(()),
        (Needs::Read | Needs::Write, _) => Role::Client,
        (Needs::Role(needed), _) => needed,
    };
    Err(Refusal::Denied(format!(
        "this needs the certificate of a {needed}, and yours is a {role}'s"
    )))
}

/// Returns whether a node must be in the directory to send this request. The certificate of a node
/// that is not there says only that it may ask to be taken in.
fn needs_listing(body: &RequestBody) -> bool {
    !matches!(
        body,
        RequestBody::View
            | RequestBody::Status
            | RequestBody::Announce { .. }
            | RequestBody::Placement { .. }
            | RequestBody::Keyspaces
            | RequestBody::Member { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::needs::of_each_kind;

    #[test]
    fn a_node_that_is_not_listed_learns_no_circumstances() {
        assert!(needs_listing(&RequestBody::Diagnose));
        assert!(!needs_listing(&RequestBody::View) && !needs_listing(&RequestBody::Status));
    }

    fn name(body: &RequestBody) -> String {
        format!("{body:?}").split([' ', '(', '{']).next().unwrap_or_default().to_owned()
    }

    #[test]
    fn each_role_may_ask_for_what_is_written_here_and_for_nothing_else() {
        use Role::{Admin, Client, Node, Reader, Server};
        let table: [(&[Role], &str); 6] = [
            (
                &[Admin, Client, Node, Reader, Server],
                "View Status Placement Diagnose Keyspaces Policies",
            ),
            (
                &[Admin, Client, Node, Reader],
                "Read Scan ReadAt ScanAt Range History Cut Leases LeaseInfo KeyTtl",
            ),
            (&[Admin, Client, Node], "Propose Deposit KeepAlive Compact"),
            (
                &[Node],
                "Announce Leaving Committed Reach Measures Departed Member MayLead HandOver \
                 Remainder",
            ),
            (
                &[Admin],
                "RemoveNode ExpelNode Revoke Drain CreateKeyspace SetKeyspace DropKeyspace \
                 ChangePolicy Rebalance MovePrimary Log",
            ),
            // The key of a server reads and writes no data, and gives no orders.
            (&[Server], "Books ChangeBooks"),
        ];
        let network = dkv_base::id::NetworkId::random();
        let mut kinds = of_each_kind();
        for (roles, names) in table {
            for wanted in names.split_whitespace() {
                let at = kinds.iter().position(|body| name(body) == wanted);
                let body = kinds.swap_remove(at.unwrap_or_else(|| panic!("{wanted} is missing")));
                for role in [Admin, Client, Node, Reader, Server] {
                    let holder = dkv_base::id::HolderId::random();
                    let peer = Identity { network, role, holder, user: None };
                    let answer = allowed(peer, &body);
                    assert_eq!(answer.is_ok(), roles.contains(&role), "{role}: {body:?}");
                    assert!(answer.is_ok() || matches!(answer, Err(Refusal::Denied(_))));
                }
            }
        }
        assert!(kinds.is_empty(), "in no row: {kinds:?}");
    }
}
