//! The inventory: every holder that was ever admitted, and the token that admitted it.
//!
//! A record outlives the token that admitted its holder: the operator must be able to find whom to
//! revoke long after the token was thrown away. Revoked holders stay in the inventory and are shown
//! as such. It is bounded: when it is full, it drops a client whose certificate has expired, or
//! else the client that was heard from longest ago. It never drops nodes, administrators, or bearer
//! tokens that are still valid.
//!
//! Deliberately missing: authority. Certificates, tokens and the deny list decide who is admitted.
//! A holder missing here, because the inventory was introduced later, is added when it is heard
//! from.

use dkv_base::id::HolderId;
use dkv_wire::identity::{Identity, Role};
use dkv_wire::limits;
use dkv_wire::message::{BearerLife, HolderInfo, HolderKind, ServerRefusal};
use dkv_wire::name::check_name;
use dkv_wire::user::User;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Effects, Registry};

/// Least time between two recorded sightings of a holder, in milliseconds.
const SIGHTING_INTERVAL_MS: u64 = 10_000;

/// Least time between two recorded renewals of a holder, in milliseconds. A holder renews every
/// four days.
const RENEWAL_INTERVAL_MS: u64 = 3_600_000;

/// An admitted holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HolderRecord {
    held: HolderKind,
    name: Option<String>,
    #[serde(default)]
    user: Option<User>,
    token: Option<Uuid>,
    made_by: Option<HolderId>,
    since_ms: Option<u64>,
    ends_ms: Option<u64>,
    /// On disk as of the last write.
    seen_ms: Option<u64>,
}

impl HolderRecord {
    fn of_certificate(identity: Identity, now_ms: u64) -> Self {
        Self {
            held: HolderKind::Certificate(identity.role),
            name: None,
            user: identity.user,
            token: None,
            made_by: None,
            since_ms: None,
            ends_ms: Some(now_ms.saturating_add(millis(limits::CERTIFICATE_LIFE))),
            seen_ms: Some(now_ms),
        }
    }

    /// Whether the holder is a registration server.
    pub(super) fn is_server(&self) -> bool {
        self.held == HolderKind::Certificate(Role::Server)
    }

    /// Whether another record says the same but for when the holder was seen.
    pub(super) fn is_same_but_seen(&self, other: &Self) -> bool {
        self == other || Self { seen_ms: other.seen_ms, ..self.clone() } == *other
    }

    /// Keeps what another copy of the record knows better: when the holder was last seen, and when
    /// its renewed certificate ends.
    pub(super) fn keep_newer_times(&mut self, known: &Self) {
        self.seen_ms = self.seen_ms.max(known.seen_ms);
        if matches!(
            (self.held, known.held),
            (HolderKind::Certificate(_), HolderKind::Certificate(_))
        ) {
            self.ends_ms = self.ends_ms.max(known.ends_ms);
        }
    }

    /// Ranks the record for eviction, the least first. `None` if it must stay.
    fn eviction_rank(&self, now_ms: u64) -> Option<(bool, u64)> {
        let lives = self.ends_ms.is_none_or(|end_ms| end_ms > now_ms);
        let may_go = match self.held {
            HolderKind::Certificate(Role::Client | Role::Reader) => true,
            HolderKind::Certificate(_) => false,
            HolderKind::Bearer(_) => !lives,
        };
        may_go.then(|| (lives, self.seen_ms.or(self.since_ms).unwrap_or_default()))
    }
}

impl Registry {
    /// Records a holder that a token has admitted. False if the inventory is full.
    pub(super) fn record_holder(
        &mut self,
        identity: Identity,
        token: Uuid,
        name: Option<String>,
        now_ms: u64,
    ) -> bool {
        let holder = identity.holder;
        if !self.make_room(holder, now_ms) {
            return false;
        }
        let known = self.holders.remove(&holder);
        let known = known.unwrap_or_else(|| HolderRecord {
            since_ms: Some(now_ms),
            ..HolderRecord::of_certificate(identity, now_ms)
        });
        let record = HolderRecord {
            token: Some(token),
            name: name.or(known.name),
            since_ms: known.since_ms,
            ..HolderRecord::of_certificate(identity, now_ms)
        };
        self.holders.insert(holder, record);
        true
    }

    /// Records that the certificate of a holder was renewed.
    pub fn handle_certified(&mut self, identity: Identity, now_ms: u64) -> ((), Effects) {
        if !self.make_room(identity.holder, now_ms) {
            return ((), Effects::NONE);
        }
        let new = HolderRecord::of_certificate(identity, now_ms);
        let record = self.holders.entry(identity.holder).or_insert_with(|| new.clone());
        record.ends_ms = new.ends_ms;
        record.seen_ms = new.seen_ms;
        ((), Effects::SAVE)
    }

    /// Whether a renewal now says something new about when a holder's certificate ends.
    pub fn is_renewal_news(&self, holder: HolderId, now_ms: u64) -> bool {
        let ends_ms = self.holders.get(&holder).and_then(|record| record.ends_ms);
        let new_ms = now_ms.saturating_add(millis(limits::CERTIFICATE_LIFE));
        ends_ms.is_none_or(|ends_ms| new_ms.abs_diff(ends_ms) >= RENEWAL_INTERVAL_MS)
    }

    /// Records that the holder of a certificate was heard from. That alone is not worth a write.
    pub fn handle_seen(&mut self, identity: Identity, now_ms: u64) -> ((), Effects) {
        match self.holders.get_mut(&identity.holder) {
            Some(record) => record.seen_ms = record.seen_ms.max(Some(now_ms)),
            None if identity.role == Role::Server => {}
            // The end of its certificate is unknown; assume that it was issued now.
            None => return (self.handle_certified(identity, now_ms).0, Effects::NONE),
        }
        ((), Effects::NONE)
    }

    /// Whether a sighting of a holder is due to be recorded.
    pub fn is_sighting_due(&self, holder: HolderId, now_ms: u64) -> bool {
        let seen_ms = self.holders.get(&holder).and_then(|record| record.seen_ms);
        seen_ms.is_none_or(|seen_ms| now_ms.saturating_sub(seen_ms) >= SIGHTING_INTERVAL_MS)
    }

    /// Records when bearer tokens were last used, as a gateway reports.
    pub fn handle_bearers_seen(&mut self, seen: &[(HolderId, u64)], now_ms: u64) -> ((), Effects) {
        for (holder, at_ms) in seen.iter().take(limits::BEARERS_SEEN_MAX) {
            if let Some(record) = self.holders.get_mut(holder)
                && matches!(record.held, HolderKind::Bearer(_))
            {
                // The gateway's clock may be ahead of this one.
                record.seen_ms = record.seen_ms.max(Some((*at_ms).min(now_ms)));
            }
        }
        ((), Effects::NONE)
    }

    /// Records a bearer token that is about to be signed, and returns when it expires, in
    /// milliseconds since 1970.
    ///
    /// # Errors
    /// `Invalid` for an invalid name, a life of zero, and if the inventory is full.
    #[expect(clippy::too_many_arguments, reason = "the fields of a token, and the time")]
    pub fn handle_create_bearer(
        &mut self,
        holder: HolderId,
        held: HolderKind,
        life: BearerLife,
        name: Option<String>,
        user: Option<User>,
        made_by: HolderId,
        now_ms: u64,
    ) -> (Result<Option<u64>, ServerRefusal>, Effects) {
        let wrong = |what: String| (Err(ServerRefusal::Invalid(what)), Effects::NONE);
        if let Some(Err(error)) = name.as_deref().map(check_name) {
            return wrong(error.to_string());
        }
        let life_ms = match life {
            BearerLife::Usual => Some(millis(limits::BEARER_LIFE)),
            BearerLife::Seconds(0) => {
                return wrong("the life of a token must be more than zero".into());
            }
            BearerLife::Seconds(life_s) => Some(life_s.saturating_mul(1000)),
            BearerLife::Endless => None,
        };
        if !self.make_room(holder, now_ms) {
            return wrong("there are too many holders; revoke some that are gone".into());
        }
        let ends_ms = life_ms.map(|life_ms| now_ms.saturating_add(life_ms));
        let record = HolderRecord {
            held,
            name,
            user,
            token: None,
            made_by: Some(made_by),
            since_ms: Some(now_ms),
            ends_ms,
            seen_ms: None,
        };
        self.holders.insert(holder, record);
        (Ok(ends_ms), Effects::SAVE)
    }

    /// Returns all admitted holders, grouped by kind, oldest first.
    pub fn holders(&self) -> Vec<HolderInfo> {
        let info = |(&id, record): (&HolderId, &HolderRecord)| {
            let node = self.nodes.iter().find(|(node, _)| HolderId::from(**node) == id);
            // A node that serves need not talk to the server; the coordinator reports it live.
            let heard_ms = node.map(|(_, node)| node.heard_ms);
            HolderInfo {
                id,
                kind: record.held,
                name: node.map(|(_, node)| node.name.clone()).or_else(|| record.name.clone()),
                user: record.user,
                token: record.token,
                made_by: record.made_by,
                since_ms: record.since_ms,
                ends_ms: record.ends_ms,
                seen_ms: record.seen_ms.max(heard_ms),
                revoked: self.denied.contains(&id),
            }
        };
        let mut holders: Vec<_> = self.holders.iter().map(info).collect();
        let kind = |held| match held {
            HolderKind::Certificate(Role::Node | Role::Server) => 0,
            HolderKind::Certificate(Role::Admin) => 1,
            HolderKind::Certificate(Role::Client) => 2,
            HolderKind::Certificate(Role::Reader) => 3,
            HolderKind::Bearer(_) => 4,
        };
        holders.sort_by_key(|holder| (kind(holder.kind), holder.since_ms, holder.id));
        holders
    }

    /// Returns the name of a holder, if it has one.
    pub fn name_of(&self, holder: HolderId) -> Option<&str> {
        self.holders.get(&holder)?.name.as_deref()
    }

    /// Makes room for a holder. False if the inventory is full and no record may be dropped.
    fn make_room(&mut self, holder: HolderId, now_ms: u64) -> bool {
        if self.holders.len() < limits::HOLDERS_MAX || self.holders.contains_key(&holder) {
            return true;
        }
        let ranked =
            self.holders.iter().filter_map(|(id, it)| Some((it.eviction_rank(now_ms)?, *id)));
        let Some((_, least)) = ranked.min() else { return false };
        self.holders.remove(&least);
        true
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
