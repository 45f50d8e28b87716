//! What certificate each kind of request takes.
//!
//! Roles, the rights of users and the audit log go by this, so that a new kind is judged in one
//! place. Users may not send one that rights forget, and the audit log has one that it has no words
//! for.

use dkv_wire::identity::Role;
use dkv_wire::message::RequestBody;

/// Whose certificate a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Any.
    Nothing,
    /// One that may read data.
    Read,
    /// One that may write data.
    Write,
    /// One of this role: it is between processes, or an order.
    Role(Role),
}

impl Needs {
    /// Returns what a request takes. This is the only place that judges each kind.
    pub(super) fn of(body: &RequestBody) -> Self {
        match body {
            RequestBody::View
            | RequestBody::Status
            | RequestBody::Placement { .. }
            | RequestBody::Diagnose
            | RequestBody::Policies
            | RequestBody::Keyspaces => Self::Nothing,
            RequestBody::Read { .. }
            | RequestBody::Scan { .. }
            | RequestBody::ReadAt { .. }
            | RequestBody::ScanAt { .. }
            | RequestBody::Range { .. }
            | RequestBody::History { .. }
            | RequestBody::Cut { .. }
            | RequestBody::Leases { .. }
            | RequestBody::LeaseInfo { .. }
            | RequestBody::KeyTtl { .. } => Self::Read,
            RequestBody::KeepAlive { .. }
            | RequestBody::Propose { .. }
            | RequestBody::Deposit { .. }
            // Who may delete what is there may forget what was.
            | RequestBody::Compact { .. } => Self::Write,
            RequestBody::Announce { .. }
            | RequestBody::Leaving
            | RequestBody::Committed { .. }
            | RequestBody::Reach { .. }
            | RequestBody::Measures(_)
            | RequestBody::Departed(_)
            | RequestBody::Member { .. }
            | RequestBody::MayLead { .. }
            | RequestBody::HandOver { .. }
            | RequestBody::Remainder { .. } => Self::Role(Role::Node),
            RequestBody::Books { .. } | RequestBody::ChangeBooks(_) => Self::Role(Role::Server),
            RequestBody::RemoveNode(_)
            | RequestBody::ExpelNode(_)
            | RequestBody::Revoke(_)
            | RequestBody::Drain { .. }
            | RequestBody::CreateKeyspace { .. }
            | RequestBody::SetKeyspace { .. }
            | RequestBody::DropKeyspace(_)
            | RequestBody::ChangePolicy(_)
            | RequestBody::Rebalance
            | RequestBody::MovePrimary { .. }
            | RequestBody::Log(_) => Self::Role(Role::Admin),
        }
    }
}

/// Returns a request of each kind, for tests: every field is zero, empty or absent.
#[cfg(test)]
pub(super) fn of_each_kind() -> Vec<RequestBody> {
    // An id is its length and its bytes. At most two begin after as many zeros as these.
    let id = [&[16][..], &[0; 16]].concat();
    let mut begins = vec![Vec::new()];
    for first in 0..4 {
        let one = [&vec![0; first], &id[..]].concat();
        begins.extend((0..4).map(|next| [&one[..], &vec![0; next], &id].concat()));
        begins.push(one);
    }
    let of_kind = |kind: u8| {
        let mut all = begins.iter().flat_map(|begin| (0..64).map(move |rest| (begin, rest)));
        all.find_map(|(begin, rest)| {
            dkv_wire::codec::decode(&[&[kind][..], begin, &vec![0; rest]].concat()).ok()
        })
    };
    (0..128).filter_map(of_kind).collect()
}
