//! Policies: which users may do what with which keys.
//!
//! A policy is a named list of rules, granted to users. The rights of a user are the union of the
//! rules of all policies that are granted to it; a user without a policy has none. A range of keys
//! is allowed if each of its keys is, whichever rule allows it. The role of a holder bounds what
//! its user may do: a reader does not write whatever its policies say. A policy may also limit how
//! much its users ask of each node.

mod limits;

use bytes::Bytes;
use dkv_base::id::KeyspaceId;
use serde::{Deserialize, Serialize};

use super::keys::Keys;
use crate::limits::{KEY_BYTES_MAX, POLICY_RULES_MAX};
use crate::user::User;

pub use self::limits::{BadLimit, LimitKind, PolicyLimits};

/// What a rule may allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// Read, list and count keys, their history, and how long they will live.
    Read,
    /// Write and delete keys. Who may write a key may learn whether it exists, and its revision.
    Write,
    /// Watch keys: see each change, from any revision that is kept, and the version before it.
    Watch,
    /// Forget the history of a keyspace. Only a rule for all of its keys allows it.
    Administer,
}

impl Right {
    /// All rights.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Watch, Self::Administer];

    /// The word for it on the command line and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Watch => "watch",
            Self::Administer => "administer",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::Read => 1,
            Self::Write => 2,
            Self::Watch => 4,
            Self::Administer => 8,
        }
    }
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Right {
    type Err = InvalidRights;

    fn from_str(text: &str) -> Result<Self, InvalidRights> {
        Self::ALL.into_iter().find(|right| right.as_str() == text).ok_or(InvalidRights)
    }
}

/// A text, or a byte of a message, that says no rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rights are some of read, write, watch and administer, with commas between them; or none")]
pub struct InvalidRights;

/// A set of rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct RightSet(u8);

impl RightSet {
    /// Whether it has a right.
    pub fn has(self, right: Right) -> bool {
        self.0 & right.bit() != 0
    }

    /// Whether it has no right.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The rights, in the order of [`Right::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.into_iter().filter(move |right| self.has(*right))
    }
}

impl FromIterator<Right> for RightSet {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        Self(rights.into_iter().fold(0, |set, right| set | right.bit()))
    }
}

impl From<RightSet> for u8 {
    fn from(set: RightSet) -> Self {
        set.0
    }
}

impl TryFrom<u8> for RightSet {
    type Error = InvalidRights;

    fn try_from(byte: u8) -> Result<Self, InvalidRights> {
        let all: Self = Right::ALL.into_iter().collect();
        if byte & !all.0 == 0 { Ok(Self(byte)) } else { Err(InvalidRights) }
    }
}

impl std::fmt::Display for RightSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<&str> = self.iter().map(Right::as_str).collect();
        f.pad(&if words.is_empty() { "none".to_owned() } else { words.join(",") })
    }
}

impl std::str::FromStr for RightSet {
    type Err = InvalidRights;

    fn from_str(text: &str) -> Result<Self, InvalidRights> {
        match text {
            "none" => Ok(Self::default()),
            words => words.split(',').map(|word| word.trim().parse::<Right>()).collect(),
        }
    }
}

/// One rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRule {
    /// The keyspace; `None` for all, those of the future included.
    pub keyspace: Option<KeyspaceId>,
    /// The keys that begin with this; all keys if it is empty.
    pub prefix: Bytes,
    /// The rights.
    pub rights: RightSet,
}

impl PolicyRule {
    /// Whether the rule gives a right to some keys of a keyspace.
    pub fn applies(&self, right: Right, keyspace: KeyspaceId) -> bool {
        self.rights.has(right) && self.keyspace.is_none_or(|only| only == keyspace)
    }
}

/// A policy, as the directory describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyInfo {
    /// Its name.
    pub name: String,
    /// Its rules, each for another keyspace or prefix.
    pub rules: Vec<PolicyRule>,
    /// The users that it is granted to.
    pub users: Vec<User>,
    /// What it limits its users to.
    pub limits: PolicyLimits,
}

/// The policies that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyList {
    /// The user who asked; `None` if its credential names none.
    pub user: Option<User>,
    /// All policies for an administrator, or else those that are granted to the user, which is the
    /// only one that they name then. In the order of their names.
    pub policies: Vec<PolicyInfo>,
}

/// A change of a policy. It may be repeated without harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyChange {
    /// The name of the policy.
    pub policy: String,
    /// What to change.
    pub act: PolicyAct,
}

/// What to change of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyAct {
    /// Creates it, granted to nobody.
    Create(Vec<PolicyRule>),
    /// Sets the rights for a keyspace and a prefix, in the place of those that the policy has for
    /// exactly these; without rights, removes that rule.
    Set(PolicyRule),
    /// Drops it, and takes it from all users.
    Drop,
    /// Grants it to a user.
    Grant(User),
    /// Takes it from a user.
    Revoke(User),
    /// Sets what it limits its users to, in the place of what it did before.
    Limit(PolicyLimits),
}

/// Why rules are not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRules {
    /// There are too many.
    #[error("a policy has at most {POLICY_RULES_MAX} rules; make another policy")]
    TooMany,
    /// A prefix is too long.
    #[error("a prefix has at most {KEY_BYTES_MAX} bytes")]
    TooLong,
    /// The right to administer is for some keys only.
    #[error("the right to administer is for all keys of a keyspace, so it takes no prefix")]
    Administer,
}

/// Checks the rules of one policy.
///
/// # Errors
/// See [`BadRules`].
pub fn check_rules<'a>(rules: impl IntoIterator<Item = &'a PolicyRule>) -> Result<(), BadRules> {
    for (index, rule) in rules.into_iter().enumerate() {
        if index >= POLICY_RULES_MAX {
            return Err(BadRules::TooMany);
        }
        if rule.prefix.len() > KEY_BYTES_MAX {
            return Err(BadRules::TooLong);
        }
        if rule.rights.has(Right::Administer) && !rule.prefix.is_empty() {
            return Err(BadRules::Administer);
        }
    }
    Ok(())
}

/// Returns whether rules give a right to some key of a keyspace.
pub fn allows_some(rules: &[PolicyRule], right: Right, keyspace: KeyspaceId) -> bool {
    rules.iter().any(|rule| rule.applies(right, keyspace))
}

/// Returns whether rules give a right to each key of a range.
pub fn allows(rules: &[PolicyRule], right: Right, keyspace: KeyspaceId, keys: Keys<'_>) -> bool {
    let applying = rules.iter().filter(|rule| rule.applies(right, keyspace));
    match keys {
        Keys::Key(key) => applying.into_iter().any(|rule| key.starts_with(&rule.prefix)),
        // Several longer prefixes never cover all keys with a shorter one: the prefix itself is a
        // key, but the empty one, which is none, has no last byte to be told apart by.
        Keys::Prefix(prefix) if !prefix.is_empty() => {
            applying.into_iter().any(|rule| prefix.starts_with(&rule.prefix))
        }
        Keys::Prefix(_) => covers(applying, &[], &[]),
        // A range without keys: who may nothing learns nothing by it either.
        Keys::Range(from, to) if !to.is_empty() && from >= to => {
            applying.into_iter().next().is_some()
        }
        Keys::Range(from, to) => covers(applying, from, to),
    }
}

/// Returns whether the prefixes of rules together cover the keys from `from` on and before `to`; no
/// end if that is empty.
fn covers<'a>(rules: impl Iterator<Item = &'a PolicyRule>, from: &[u8], to: &[u8]) -> bool {
    let mut prefixes: Vec<&[u8]> = rules.map(|rule| &rule.prefix[..]).collect();
    prefixes.sort_unstable();
    // No key is empty: the first one is a single zero.
    let mut covered = if from.is_empty() { vec![0] } else { from.to_vec() };
    let is_done = |covered: &[u8]| !to.is_empty() && covered >= to;
    for prefix in prefixes {
        if is_done(&covered) {
            return true;
        }
        if prefix > &covered[..] {
            // What lies before this prefix is covered by no later one.
            return false;
        }
        match after_prefix(prefix) {
            None => return true,
            Some(end) if end > covered => covered = end,
            Some(_) => {}
        }
    }
    is_done(&covered)
}

/// The first key after all that begin with a prefix; `None` if there is none.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix.get(..=last)?.to_vec();
    if let Some(byte) = end.last_mut() {
        *byte += 1;
    }
    Some(end)
}

#[cfg(test)]
mod tests;
