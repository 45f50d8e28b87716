//! The inventory: every holder that was ever admitted, and the token that admitted it.
//!
//! A record outlives the token that admitted its holder: the operator must be able to find whom to
//! revoke long after the token was thrown away. Revoked holders stay in the inventory and are shown
//! as such, until their room is needed.
//!
//! It is bounded. When it is full, records make room in the order of [`Leaving`]: those of no use
//! any more first, live clients and readers last, and live nodes, administrators, servers and
//! bearer tokens never. No live record is dropped for a token that has admitted a quarter of all
//! already: who floods the inventory would hide those that it admitted before. Some room is kept
//! for administrators and servers.
//!
//! Deliberately missing: authority. Certificates, tokens and the deny list decide who is admitted.
//! A holder missing here, because the inventory was introduced later, is added when it is heard
//! from.

use std::collections::HashMap;

use dkv_base::id::HolderId;
use dkv_wire::identity::{Identity, Role};
use dkv_wire::limits;
use dkv_wire::message::{BearerLife, HolderInfo, HolderKind, JoinRefusal, ServerRefusal};
use dkv_wire::name::check_name;
use dkv_wire::user::User;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Effects, Registry};
use crate::limits::{HOLDERS_KEPT, TOKEN_HOLDERS_MAX};

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

    /// When the record makes room; `None` if it must stay.
    fn leaving(&self, is_revoked: bool, now_ms: u64) -> Option<Leaving> {
        let is_after = |time_ms: Option<u64>| time_ms.is_some_and(|time_ms| time_ms <= now_ms);
        let has_ended = is_after(self.ends_ms);
        let within_ms = millis(limits::RECERTIFY_WITHIN);
        let has_lapsed = is_after(self.ends_ms.map(|end_ms| end_ms.saturating_add(within_ms)));
        match self.held {
            _ if is_revoked && has_ended => Some(Leaving::RevokedAndEnded),
            HolderKind::Bearer(_) if has_ended => Some(Leaving::Ended),
            HolderKind::Certificate(_) if is_revoked => Some(Leaving::Revoked),
            HolderKind::Certificate(Role::Client | Role::Reader) if has_ended => {
                Some(Leaving::Ended)
            }
            HolderKind::Certificate(_) if has_lapsed => Some(Leaving::Lapsed),
            HolderKind::Certificate(Role::Client | Role::Reader) => Some(Leaving::Live),
            HolderKind::Bearer(_) if is_revoked => Some(Leaving::Revoked),
            HolderKind::Certificate(_) | HolderKind::Bearer(_) => None,
        }
    }
}

/// The records that may be dropped, in the order in which they make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Leaving {
    /// Revoked, and of no use anyhow.
    RevokedAndEnded,
    /// A bearer token, or the certificate of a client or reader, that has ended.
    Ended,
    /// A certificate that ended so long ago that it takes a token to be renewed.
    Lapsed,
    /// Revoked before its end. The deny list goes on refusing it.
    Revoked,
    /// A client or reader.
    Live,
}

impl Registry {
    /// Records a holder that a token has admitted.
    ///
    /// # Errors
    /// `Full` if the inventory has no room, `Crowded` if it has none for more of this token.
    pub(super) fn record_holder(
        &mut self,
        identity: Identity,
        token: Uuid,
        name: Option<String>,
        now_ms: u64,
    ) -> Result<(), JoinRefusal> {
        let holder = identity.holder;
        self.make_room(holder, identity.role, Some(token), now_ms)?;
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
        Ok(())
    }

    /// Records that the certificate of a holder was renewed.
    pub fn handle_certified(&mut self, identity: Identity, now_ms: u64) -> ((), Effects) {
        if self.make_room(identity.holder, identity.role, None, now_ms).is_err() {
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
        // It is an administrator's, whose room is kept.
        if self.make_room(holder, Role::Admin, None, now_ms).is_err() {
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

    /// Makes room for a holder that a token admits, or that is found to have been admitted before.
    fn make_room(
        &mut self,
        holder: HolderId,
        role: Role,
        token: Option<Uuid>,
        now_ms: u64,
    ) -> Result<(), JoinRefusal> {
        let room = match role {
            Role::Admin | Role::Server => limits::HOLDERS_MAX,
            Role::Node | Role::Client | Role::Reader => limits::HOLDERS_MAX - HOLDERS_KEPT,
        };
        if self.holders.len() < room || self.holders.contains_key(&holder) {
            return Ok(());
        }
        // What live holders the tokens have admitted.
        let mut admitted: HashMap<Uuid, usize> = HashMap::new();
        let mut ranked = Vec::new();
        for (id, record) in &self.holders {
            let leaving = record.leaving(self.denied.contains(id), now_ms);
            let lives = leaving.is_none_or(|leaving| leaving == Leaving::Live);
            if let Some(token) = record.token.filter(|_| lives) {
                *admitted.entry(token).or_default() += 1;
            }
            ranked.extend(leaving.map(|leaving| (leaving, record, *id)));
        }
        let of = |token: Option<Uuid>| {
            token.and_then(|token| admitted.get(&token)).copied().unwrap_or_default()
        };
        // The latest of a flood goes, not those that its token admitted before. If there is none,
        // the holder goes that was heard from longest ago.
        let rank = |(leaving, record, id): (Leaving, &HolderRecord, HolderId)| {
            let seen_ms = record.seen_ms.or(record.since_ms).unwrap_or_default();
            let is_flood = leaving == Leaving::Live && of(record.token) > TOKEN_HOLDERS_MAX;
            let at_ms = match is_flood {
                true => u64::MAX - record.since_ms.unwrap_or_default(),
                false => seen_ms,
            };
            (leaving, !is_flood, at_ms, id)
        };
        let least = ranked.into_iter().map(rank).min();
        let count = of(token);
        match least {
            Some((Leaving::Live, ..)) | None if count > TOKEN_HOLDERS_MAX => {
                Err(JoinRefusal::Crowded(count as u32))
            }
            Some((.., least)) => {
                self.holders.remove(&least);
                Ok(())
            }
            None => Err(JoinRefusal::Full),
        }
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
