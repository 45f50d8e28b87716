//! Join tokens: creation, use, listing, revocation.
//!
//! The registry keeps only a hash of a token's secret. A caller without the right secret learns
//! nothing, not even whether the token exists; only the bearer learns that it has expired.

use std::collections::VecDeque;

use dkv_base::id::HolderId;
use dkv_wire::identity::{Identity, Role};
use dkv_wire::message::{JoinRefusal, ServerRefusal, TokenInfo};
use dkv_wire::name::check_name;
use dkv_wire::token::SecretHash;
use dkv_wire::user::User;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Effects, Registry};
use crate::limits::{
    ADMITTED_MAX, SERVER_TOKEN_LIFE_S, SERVER_TOKEN_LIFE_S_MAX, TOKENS_DROPPED_MAX, TOKENS_MAX,
};

/// A join token, without its secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenRecord {
    role: Role,
    name: Option<String>,
    #[serde(default)]
    user: Option<User>,
    secret_hash: SecretHash,
    created_ms: u64,
    expires_ms: Option<u64>,
    uses: Option<u32>,
    used: u32,
    admitted: VecDeque<HolderId>,
}

impl TokenRecord {
    fn check(&self, now_ms: u64) -> Result<(), JoinRefusal> {
        if self.expires_ms.is_some_and(|end_ms| now_ms >= end_ms) {
            return Err(JoinRefusal::Expired);
        }
        if self.uses.is_some_and(|uses| self.used >= uses) {
            return Err(JoinRefusal::UsedUp);
        }
        Ok(())
    }
}

impl Registry {
    /// Returns the role that a token grants now, and the user that its bearer is.
    pub fn check_token(
        &self,
        token: Uuid,
        secret: &[u8; 32],
        now_ms: u64,
    ) -> Result<(Role, Option<User>), JoinRefusal> {
        let Some(record) = self.tokens.get(&token) else {
            // As much work as for an existing token, so that timing does not tell them apart.
            let _ = SecretHash::of(&[0; 32]).matches(secret);
            return Err(JoinRefusal::Unknown);
        };
        if !record.secret_hash.matches(secret) {
            return Err(JoinRefusal::Unknown);
        }
        record.check(now_ms).map(|()| (record.role, record.user))
    }

    /// Uses a token once: for a holder with a fresh id, or for one that is admitted again after its
    /// certificate lapsed.
    pub fn handle_join(
        &mut self,
        token: Uuid,
        secret: &[u8; 32],
        holder: HolderId,
        now_ms: u64,
    ) -> (Result<Role, JoinRefusal>, Effects) {
        let (role, user) = match self.check_token(token, secret, now_ms) {
            Ok(granted) => granted,
            Err(refusal) => return (Err(refusal), Effects::NONE),
        };
        let name = self.tokens.get(&token).and_then(|record| record.name.clone());
        let identity = Identity { network: self.network, role, holder, user };
        if let Err(refusal) = self.record_holder(identity, token, name, now_ms) {
            return (Err(refusal), Effects::NONE);
        }
        if let Some(record) = self.tokens.get_mut(&token) {
            record.used = record.used.saturating_add(1);
            record.admitted.push_back(holder);
            while record.admitted.len() > ADMITTED_MAX {
                record.admitted.pop_front();
            }
        }
        (Ok(role), Effects::SAVE)
    }

    /// Records a fresh token.
    ///
    /// # Errors
    /// `Invalid` for a token that could never be used, for one of a server that lives long or comes
    /// too early, and if there are too many tokens. An error changes nothing.
    #[expect(clippy::too_many_arguments, reason = "the fields of a token, and the time")]
    pub fn handle_create_token(
        &mut self,
        token: Uuid,
        secret_hash: SecretHash,
        role: Role,
        life_s: Option<u64>,
        uses: Option<u32>,
        name: Option<String>,
        user: Option<User>,
        now_ms: u64,
    ) -> (Result<(), ServerRefusal>, Effects) {
        let wrong = |what: String| (Err(ServerRefusal::Invalid(what)), Effects::NONE);
        if let Some(Err(error)) = name.as_deref().map(check_name) {
            return wrong(error.to_string());
        }
        if let Some(user) = user.filter(|_| !role.may_name_user()) {
            return wrong(format!("a {role} acts for all users, so its token cannot be {user}'s"));
        }
        if life_s == Some(0) || uses == Some(0) {
            return wrong("the life and the uses of a token must be more than zero".into());
        }
        if self.tokens.len() >= TOKENS_MAX {
            // Expired and used-up tokens admit nobody and make room.
            let mut left = TOKENS_DROPPED_MAX;
            self.tokens.retain(|_, record| {
                let stays = left == 0 || record.check(now_ms).is_ok();
                left -= usize::from(!stays);
                stays
            });
        }
        if self.tokens.len() >= TOKENS_MAX {
            return wrong(format!("there are {TOKENS_MAX} join tokens already; revoke some first"));
        }
        let (life_s, uses) = if role == Role::Server {
            // Its bearer gets the key of the network's authority.
            if self.books_version().is_none() {
                return wrong(
                    "a second server can join once the control group has the books; start a node, \
                     then try again"
                        .into(),
                );
            }
            let life_s = life_s.unwrap_or(SERVER_TOKEN_LIFE_S);
            if life_s > SERVER_TOKEN_LIFE_S_MAX {
                return wrong(format!(
                    "a server's token lives for at most {} hours",
                    SERVER_TOKEN_LIFE_S_MAX / 3600
                ));
            }
            (Some(life_s), uses.or(Some(1)))
        } else {
            (life_s, uses)
        };
        let life_ms = life_s.map(|life_s| life_s.saturating_mul(1000));
        let record = TokenRecord {
            role,
            name,
            user,
            secret_hash,
            created_ms: now_ms,
            expires_ms: life_ms.map(|life_ms| now_ms.saturating_add(life_ms)),
            uses,
            used: 0,
            admitted: VecDeque::new(),
        };
        self.tokens.insert(token, record);
        (Ok(()), Effects::SAVE)
    }

    /// Revokes a token. The holders that it admitted stay, and stay in the inventory.
    pub fn handle_revoke_token(&mut self, token: Uuid) -> (Result<(), ServerRefusal>, Effects) {
        if self.tokens.remove(&token).is_none() {
            let what = format!("there is no join token {token}");
            return (Err(ServerRefusal::Invalid(what)), Effects::NONE);
        }
        (Ok(()), Effects::SAVE)
    }

    /// Whether the token exists.
    pub fn has_token(&self, token: Uuid) -> bool {
        self.tokens.contains_key(&token)
    }

    /// Returns all tokens, oldest first.
    pub fn tokens(&self) -> Vec<TokenInfo> {
        let mut tokens: Vec<_> = self.tokens.iter().collect();
        tokens.sort_by_key(|(id, record)| (record.created_ms, **id));
        let info = |(&id, record): (&Uuid, &TokenRecord)| TokenInfo {
            id,
            role: record.role,
            user: record.user,
            name: record.name.clone(),
            expires_ms: record.expires_ms,
            used: record.used,
            uses: record.uses,
            admitted: record.admitted.iter().copied().collect(),
        };
        tokens.into_iter().map(info).collect()
    }
}
