//! The inventory: everybody who was ever let in, and by which token.
//!
//! A record survives the token that admitted its holder: whom to revoke must be known long after
//! the token was thrown away. Revoked holders stay in it, and are shown as such. It is bounded:
//! when it is full, a client whose certificate has ended makes room, otherwise the one that was
//! heard of longest ago. Nodes, administrators and bearer tokens that have not ended never do.
//!
//! Deliberately missing: authority. Who may come in is said by certificates, tokens and the deny
//! list; a holder that is not in here, since the books are older than it, enters when it is heard
//! of.

use dkv_base::id::HolderId;
use dkv_wire::identity::{Identity, Role};
use dkv_wire::limits;
use dkv_wire::message::{BearerLife, HolderInfo, HolderKind, ServerRefusal};
use dkv_wire::name::check_name;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Effects, Registry};

/// How much later than was known a holder must be heard of for that to be noted, in milliseconds.
const SEEN_EVERY_MS: u64 = 10_000;

/// Somebody who was let in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HolderRecord {
    held: HolderKind,
    name: Option<String>,
    token: Option<Uuid>,
    made_by: Option<HolderId>,
    since_ms: Option<u64>,
    ends_ms: Option<u64>,
    /// In the books as of their last change.
    seen_ms: Option<u64>,
}

impl HolderRecord {
    fn of_certificate(role: Role, now_ms: u64) -> Self {
        Self {
            held: HolderKind::Certificate(role),
            name: None,
            token: None,
            made_by: None,
            since_ms: None,
            ends_ms: Some(now_ms.saturating_add(millis(limits::CERTIFICATE_LIFE))),
            seen_ms: Some(now_ms),
        }
    }

    /// Whether it may be forgotten for want of room, and in which order: the least first.
    fn rank(&self, now_ms: u64) -> Option<(bool, u64)> {
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
    /// Notes whom a token has admitted. False if there is no room, and nobody who could make some.
    pub(super) fn enter_holder(
        &mut self,
        holder: HolderId,
        role: Role,
        token: Uuid,
        name: Option<String>,
        now_ms: u64,
    ) -> bool {
        if !self.make_room(holder, now_ms) {
            return false;
        }
        let known = self.holders.remove(&holder);
        let known = known.unwrap_or_else(|| HolderRecord {
            since_ms: Some(now_ms),
            ..HolderRecord::of_certificate(role, now_ms)
        });
        let record = HolderRecord {
            token: Some(token),
            name: name.or(known.name),
            since_ms: known.since_ms,
            ..HolderRecord::of_certificate(role, now_ms)
        };
        self.holders.insert(holder, record);
        true
    }

    /// Notes that the holder of a certificate was given another one.
    pub fn handle_certified(&mut self, identity: Identity, now_ms: u64) -> ((), Effects) {
        if !self.make_room(identity.holder, now_ms) {
            return ((), Effects::NONE);
        }
        let new = HolderRecord::of_certificate(identity.role, now_ms);
        let record = self.holders.entry(identity.holder).or_insert_with(|| new.clone());
        record.ends_ms = new.ends_ms;
        record.seen_ms = new.seen_ms;
        ((), Effects::SAVE)
    }

    /// Notes that the holder of a certificate was heard of. That alone is not worth a write.
    pub fn handle_seen(&mut self, identity: Identity, now_ms: u64) -> ((), Effects) {
        match self.holders.get_mut(&identity.holder) {
            Some(record) => record.seen_ms = record.seen_ms.max(Some(now_ms)),
            None if identity.role == Role::Server => {}
            // Its end is not known; that of a certificate that was made now is later.
            None => return (self.handle_certified(identity, now_ms).0, Effects::NONE),
        }
        ((), Effects::NONE)
    }

    /// Whether it is worth noting that a holder was heard of.
    pub fn is_news_of(&self, holder: HolderId, now_ms: u64) -> bool {
        let seen_ms = self.holders.get(&holder).and_then(|record| record.seen_ms);
        seen_ms.is_none_or(|seen_ms| now_ms.saturating_sub(seen_ms) >= SEEN_EVERY_MS)
    }

    /// Notes when bearer tokens were shown, as somebody says who judges them.
    pub fn handle_bearers_seen(&mut self, seen: &[(HolderId, u64)], now_ms: u64) -> ((), Effects) {
        for (holder, at_ms) in seen.iter().take(limits::BEARERS_SEEN_MAX) {
            if let Some(record) = self.holders.get_mut(holder)
                && matches!(record.held, HolderKind::Bearer(_))
            {
                // Whoever says so may have another clock; nobody was seen in the future.
                record.seen_ms = record.seen_ms.max(Some((*at_ms).min(now_ms)));
            }
        }
        ((), Effects::NONE)
    }

    /// Enters a bearer token that is about to be signed, and says when it ends.
    ///
    /// # Errors
    /// `Invalid` for a name that cannot be, a life of no time, and if there is no room.
    pub fn handle_create_bearer(
        &mut self,
        holder: HolderId,
        held: HolderKind,
        life: BearerLife,
        name: Option<String>,
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
                return wrong("a token that lives for no time is none".into());
            }
            BearerLife::Seconds(life_s) => Some(life_s.saturating_mul(1000)),
            BearerLife::Endless => None,
        };
        if !self.make_room(holder, now_ms) {
            return wrong("there are too many holders; revoke those that are gone".into());
        }
        let ends_ms = life_ms.map(|life_ms| now_ms.saturating_add(life_ms));
        let record = HolderRecord {
            held,
            name,
            token: None,
            made_by: Some(made_by),
            since_ms: Some(now_ms),
            ends_ms,
            seen_ms: None,
        };
        self.holders.insert(holder, record);
        (Ok(ends_ms), Effects::SAVE)
    }

    /// Everybody who was let in, those of one kind together, oldest first.
    pub fn holders(&self) -> Vec<HolderInfo> {
        let info = |(&id, record): (&HolderId, &HolderRecord)| {
            let node = self.nodes.iter().find(|(node, _)| HolderId::from(**node) == id);
            // The coordinator reports who lives; a node that serves need not talk to the server.
            let heard_ms = node.map(|(_, node)| node.heard_ms);
            HolderInfo {
                id,
                kind: record.held,
                name: node.map(|(_, node)| node.name.clone()).or_else(|| record.name.clone()),
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

    /// What people call a holder, if it has a name.
    pub fn name_of(&self, holder: HolderId) -> Option<&str> {
        self.holders.get(&holder)?.name.as_deref()
    }

    /// Makes room for a holder that is not in the inventory. False if nobody may be forgotten.
    fn make_room(&mut self, holder: HolderId, now_ms: u64) -> bool {
        if self.holders.len() < limits::HOLDERS_MAX || self.holders.contains_key(&holder) {
            return true;
        }
        let ranked = self.holders.iter().filter_map(|(id, it)| Some((it.rank(now_ms)?, *id)));
        let Some((_, least)) = ranked.min() else { return false };
        self.holders.remove(&least);
        true
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use dkv_base::id::NetworkId;
    use dkv_wire::bearer::Rights;
    use dkv_wire::message::JoinRefusal;
    use dkv_wire::network::Settings;
    use dkv_wire::token::SecretHash;

    use super::*;

    const SECRET: [u8; 32] = [7; 32];

    fn id(number: usize) -> HolderId {
        HolderId(Uuid::from_u128(number as u128))
    }

    /// A registry with a token of a role, whose id is the role's number.
    fn registry(roles: &[Role]) -> Registry {
        let mut registry = Registry::new(NetworkId(Uuid::nil()), Settings::default(), 0);
        for role in roles {
            let (token, hash) = (Uuid::from_u128(*role as u128), SecretHash::of(&SECRET));
            let name = Some(format!("of-{role}"));
            registry.handle_create_token(token, hash, *role, None, None, name, 0).0.unwrap();
        }
        registry
    }

    fn join(registry: &mut Registry, role: Role, number: usize, at_ms: u64) -> bool {
        let token = Uuid::from_u128(role as u128);
        match registry.handle_join(token, &SECRET, id(number), at_ms).0 {
            Ok(joined) => joined == role,
            Err(refusal) => {
                assert_eq!(refusal, JoinRefusal::Full);
                false
            }
        }
    }

    #[test]
    fn whom_a_token_admitted_is_known_after_the_token_is_gone() {
        let mut registry = registry(&[Role::Admin, Role::Client]);
        assert!(join(&mut registry, Role::Admin, 1, 5) && join(&mut registry, Role::Client, 2, 6));
        let token = Uuid::from_u128(Role::Admin as u128);
        registry.handle_revoke_token(token).0.unwrap();
        registry.deny(&[id(2)]);
        let books = crate::books::encode(&registry).unwrap();
        let mut registry = crate::books::decode(std::path::Path::new("b"), &books).unwrap();
        let holders = registry.holders();
        let shown: Vec<_> = holders.iter().map(|it| (it.id, it.kind, it.revoked)).collect();
        let of = HolderKind::Certificate;
        assert_eq!(shown, [(id(1), of(Role::Admin), false), (id(2), of(Role::Client), true)]);
        assert_eq!((holders[0].token, holders[0].since_ms), (Some(token), Some(5)));
        assert_eq!(holders[0].name.as_deref(), Some("of-admin"));
        let end_ms = 5 + millis(limits::CERTIFICATE_LIFE);
        assert_eq!((holders[0].ends_ms, holders[0].seen_ms), (Some(end_ms), Some(5)));

        let identity = Identity { network: registry.network(), role: Role::Admin, holder: id(1) };
        assert!(!registry.is_news_of(id(1), 6) && registry.is_news_of(id(1), 20_000));
        assert_eq!(registry.handle_seen(identity, 20_000).1, Effects::NONE);
        assert_eq!(registry.holders()[0].seen_ms, Some(20_000));
        assert_eq!(registry.handle_certified(identity, 30_000).1, Effects::SAVE);
        assert_eq!(registry.holders()[0].ends_ms, Some(30_000 + millis(limits::CERTIFICATE_LIFE)));
        assert_eq!(registry.holders()[0].since_ms, Some(5));
    }

    #[test]
    fn a_holder_that_the_books_do_not_know_enters_when_it_is_heard_of() {
        let mut registry = registry(&[]);
        let identity = Identity { network: registry.network(), role: Role::Admin, holder: id(9) };
        registry.handle_seen(identity, 100);
        let holders = registry.holders();
        assert_eq!((holders[0].id, holders[0].token, holders[0].since_ms), (id(9), None, None));
    }

    #[test]
    fn a_bearer_ends_unless_it_is_said_not_to_and_its_last_use_is_noted() {
        let mut registry = registry(&[]);
        let held = HolderKind::Bearer(Rights::Read);
        let mut create = |number, life, name: Option<&str>| {
            let name = name.map(str::to_owned);
            registry.handle_create_bearer(id(number), held, life, name, id(1), 1000).0
        };
        let usual = 1000 + millis(limits::BEARER_LIFE);
        assert_eq!(create(1, BearerLife::Usual, None), Ok(Some(usual)));
        assert_eq!(create(2, BearerLife::Seconds(5), Some("ci")), Ok(Some(6000)));
        assert_eq!(create(3, BearerLife::Endless, None), Ok(None));
        assert!(create(4, BearerLife::Seconds(0), None).is_err());
        assert!(create(4, BearerLife::Usual, Some("a\u{1b}[2J")).is_err());
        let (_, effects) =
            registry.handle_bearers_seen(&[(id(2), 1500), (id(3), u64::MAX), (id(8), 1)], 2000);
        assert_eq!(effects, Effects::NONE);
        let seen: Vec<_> = registry.holders().iter().map(|it| it.seen_ms).collect();
        assert_eq!(seen, [None, Some(1500), Some(2000)]);
    }

    #[test]
    fn a_flood_of_clients_forgets_clients_and_nobody_else() {
        let roles = [Role::Admin, Role::Client, Role::Node];
        let mut registry = registry(&roles);
        let life_ms = millis(limits::CERTIFICATE_LIFE);
        assert!(join(&mut registry, Role::Admin, 0, 0) && join(&mut registry, Role::Node, 1, 0));
        for number in 2..limits::HOLDERS_MAX {
            assert!(join(&mut registry, Role::Client, number, number as u64));
        }
        // The second one is heard of again, so the third makes room.
        let identity = Identity { network: registry.network(), role: Role::Client, holder: id(2) };
        registry.handle_seen(identity, 50_000);
        assert!(join(&mut registry, Role::Client, 1 << 20, 60_000));
        let knows = |registry: &Registry, number| registry.holders.contains_key(&id(number));
        assert_eq!(registry.holders.len(), limits::HOLDERS_MAX);
        assert!(knows(&registry, 0) && knows(&registry, 1) && knows(&registry, 2));
        assert!(!knows(&registry, 3) && knows(&registry, 1 << 20));
        // Long after, administrators and nodes are still there.
        assert!(join(&mut registry, Role::Client, 1 << 21, 3 * life_ms));
        assert!(knows(&registry, 0) && knows(&registry, 1));
    }

    #[test]
    fn nobody_is_admitted_whom_nobody_could_list() {
        let mut registry = registry(&[Role::Admin]);
        for number in 0..limits::HOLDERS_MAX {
            assert!(join(&mut registry, Role::Admin, number, 0));
        }
        assert!(!join(&mut registry, Role::Admin, 1 << 20, 0));
        let used = registry.tokens()[0].used;
        assert_eq!(used as usize, limits::HOLDERS_MAX, "a token was used up for nothing");
    }
}
