//! The limits of users: what a request or a watch takes of them.
//!
//! The node that a client asks counts its requests, before any replica hears of them; what another
//! node passes on was counted there. A holder that is nobody's has no limits but its
//! [share](crate::net::quota).

use dkv_wire::identity::{Identity, Role};
use dkv_wire::message::{PolicyLimits, Refusal, RequestBody};
use dkv_wire::user::User;
use tokio::time::Instant;

use super::rights::both;
use crate::net::user_limits::{Charged, ConnectionPlace, SharesOfUsers};
use crate::node::{Node, Replicas};

/// Takes a request with a frame of `bytes` bytes, and returns the shares that pay for its answer.
///
/// # Errors
/// [`Refusal::Limited`] if a user of it has used up its limits.
pub(super) fn take(
    node: &Node,
    peer: Identity,
    asked: Option<User>,
    body: &RequestBody,
    bytes: usize,
) -> Result<Charged, Refusal> {
    // A client asks for the view by itself, and needs it to find its way.
    if matches!(body, RequestBody::View) {
        return Ok(Charged::new());
    }
    take_any(node, peer, asked, bytes)
}

/// Takes the request of a watch, as [`take`] does.
///
/// # Errors
/// As for [`take`].
pub(super) fn take_any(
    node: &Node,
    peer: Identity,
    asked: Option<User>,
    bytes: usize,
) -> Result<Charged, Refusal> {
    let mut charged = Charged::new();
    for user in charged_users(peer, asked) {
        let limits = of(node.replicas(), user);
        let shares = node.connections().user_limits();
        match shares.take(user, limits, bytes, Instant::now()) {
            Ok(share) => charged.extend(share),
            Err(refusal) => {
                // A request that is refused costs nothing.
                charged.iter().for_each(|share| share.give_back(bytes));
                return Err(refusal);
            }
        }
    }
    Ok(charged)
}

/// Returns the shares of the users of a watch. It lasts, and pays by the limits of each moment.
pub(super) fn shares(node: &Node, peer: Identity, asked: Option<User>) -> SharesOfUsers {
    let (limits, now) = (node.connections().user_limits(), Instant::now());
    charged_users(peer, asked).map(|user| (user, limits.of(user, now))).collect()
}

/// Who pays for what a peer asks: for what another node passes on, nobody here.
fn charged_users(peer: Identity, asked: Option<User>) -> impl Iterator<Item = User> {
    both(peer.user, asked).filter(move |_| peer.role != Role::Node)
}

/// Counts a connection, if its user may have one more; `None` if it may not.
pub(super) fn connect(node: &Node, peer: Identity) -> Option<Option<ConnectionPlace>> {
    let Some(user) = peer.user else { return Some(None) };
    let limits = of(node.replicas(), user);
    // Counted without a limit, too: one may come.
    node.connections().user_limits().connect(user, limits).map(Some)
}

/// Returns the limits of a user now.
pub(super) fn of(replicas: &Replicas, user: User) -> PolicyLimits {
    replicas.with_directory(|directory| directory.limits_of(user)).unwrap_or_default()
}
