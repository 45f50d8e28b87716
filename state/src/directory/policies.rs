//! Policies in the directory: how they change, and the rights of each user that follow from them.
//!
//! The rights of all users are computed with each change, so that a request of a user costs one
//! look-up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use dkv_base::id::KeyspaceId;
use dkv_wire::limits::{
    POLICIES_BYTES_MAX, POLICIES_MAX, POLICY_OVERHEAD_BYTES, POLICY_USERS_MAX, USER_RULES_MAX,
    USERS_RULES_MAX,
};
use dkv_wire::message::{
    PolicyAct, PolicyChange, PolicyInfo, PolicyLimits, PolicyRule, RightSet, check_rules,
};
use dkv_wire::name::check_name;
use dkv_wire::user::User;
use serde::{Deserialize, Serialize};

use super::{Contents, Directory};

/// Returns from a change with the reason why it is rejected.
macro_rules! reject {
    ($($text:tt)*) => {
        return Err(format!($($text)*))
    };
}

/// A policy of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Policy {
    /// The rights by keyspace (`None` for all) and prefix; none of them empty.
    rules: BTreeMap<(Option<KeyspaceId>, Bytes), RightSet>,
    /// The users that it is granted to.
    users: BTreeSet<User>,
    /// What it limits them to.
    limits: PolicyLimits,
}

impl Policy {
    fn rules(&self) -> impl Iterator<Item = PolicyRule> + '_ {
        self.rules.iter().map(|((keyspace, prefix), rights)| PolicyRule {
            keyspace: *keyspace,
            prefix: prefix.clone(),
            rights: *rights,
        })
    }

    fn info(&self, name: &str, users: Vec<User>) -> PolicyInfo {
        let (name, rules, limits) = (name.to_owned(), self.rules().collect(), self.limits);
        PolicyInfo { name, rules, users, limits }
    }

    /// What it counts for among all policies, in bytes.
    fn bytes(&self) -> usize {
        let prefixes = self.rules.keys().map(|(_, prefix)| prefix.len() + POLICY_OVERHEAD_BYTES);
        prefixes.sum::<usize>() + self.users.len() * 2 * POLICY_OVERHEAD_BYTES
    }
}

/// The policies of the network, and the rights that follow from them.
pub(super) type Policies = BTreeMap<String, Policy>;
pub(super) type UserRights = BTreeMap<User, Arc<[PolicyRule]>>;
/// The limits of the users that have some.
pub(super) type UserLimits = BTreeMap<User, PolicyLimits>;

/// Returns the names of the policies of each user that has one.
fn policies_of_users(policies: &Policies) -> BTreeMap<User, Vec<&str>> {
    let mut of_users: BTreeMap<User, Vec<&str>> = BTreeMap::new();
    for (name, policy) in policies {
        for user in &policy.users {
            of_users.entry(*user).or_default().push(name);
        }
    }
    of_users
}

/// Returns the rights of each user that has a policy. Users with the same policies share them.
pub(super) fn rights_of_users(policies: &Policies) -> UserRights {
    let mut shared: BTreeMap<Vec<&str>, Arc<[PolicyRule]>> = BTreeMap::new();
    let rules = |names: &Vec<&str>| {
        let policies = names.iter().filter_map(|name| policies.get(*name));
        policies.flat_map(Policy::rules).collect()
    };
    let of_users = policies_of_users(policies).into_iter();
    let rights = of_users.map(|(user, names)| {
        let rules = shared.entry(names).or_insert_with_key(rules);
        (user, Arc::clone(rules))
    });
    rights.collect()
}

/// Returns the limits of each user that has some: the least of each in its policies.
pub(super) fn limits_of_users(policies: &Policies) -> UserLimits {
    let mut of_users = UserLimits::new();
    for policy in policies.values().filter(|policy| !policy.limits.is_none()) {
        for user in &policy.users {
            let limits = of_users.entry(*user).or_default();
            *limits = limits.least(policy.limits);
        }
    }
    of_users
}

/// Checks that no user has too many rules, and all of them together do not: each request of a user
/// looks at all of its rules, and each change of a policy computes those of all users.
fn check_rights(policies: &Policies) -> Result<(), String> {
    let count = |names: &Vec<&str>| -> usize {
        names.iter().filter_map(|name| policies.get(*name)).map(|policy| policy.rules.len()).sum()
    };
    let of_users = policies_of_users(policies);
    if let Some((user, _)) = of_users.iter().find(|(_, names)| count(names) > USER_RULES_MAX) {
        reject!("a user has at most {USER_RULES_MAX} rules, and {user} would have more");
    }
    let different: BTreeSet<&Vec<&str>> = of_users.values().collect();
    if different.into_iter().map(count).sum::<usize>() > USERS_RULES_MAX {
        reject!(
            "users with different policies have at most {USERS_RULES_MAX} rules together; grant \
             the same policies to more of them"
        );
    }
    Ok(())
}

impl Directory {
    /// Returns all policies, by name.
    pub fn policies(&self) -> impl Iterator<Item = PolicyInfo> + '_ {
        self.contents.policies.iter().map(|(name, policy)| {
            let users = policy.users.iter().copied().collect();
            policy.info(name, users)
        })
    }

    /// Returns the policies that are granted to a user, by name; they name no other user.
    pub fn policies_of(&self, user: User) -> impl Iterator<Item = PolicyInfo> + '_ {
        let own = self.contents.policies.iter();
        let own = own.filter(move |(_, policy)| policy.users.contains(&user));
        own.map(move |(name, policy)| policy.info(name, vec![user]))
    }

    /// Returns what the policies of a user limit it to, at each node.
    pub fn limits_of(&self, user: User) -> PolicyLimits {
        self.limits.get(&user).copied().unwrap_or_default()
    }

    /// Returns the rules of all policies that are granted to a user: none for a user without one.
    pub fn rights_of(&self, user: User) -> Arc<[PolicyRule]> {
        self.rights.get(&user).cloned().unwrap_or_default()
    }
}

impl Contents {
    /// Changes a policy.
    pub(super) fn change_policy(&mut self, change: &PolicyChange) -> Result<(), String> {
        let PolicyChange { policy: name, act } = change;
        match act {
            PolicyAct::Create(rules) => self.create_policy(name, rules)?,
            PolicyAct::Drop => {
                // To drop what is gone already is a repetition.
                self.policies.remove(name);
            }
            PolicyAct::Set(rule) => {
                self.check_keyspace(rule)?;
                let policy = self.policy_mut(name)?;
                let key = (rule.keyspace, rule.prefix.clone());
                if rule.rights.is_empty() {
                    policy.rules.remove(&key);
                } else {
                    policy.rules.insert(key, rule.rights);
                }
                let rules: Vec<PolicyRule> = policy.rules().collect();
                check_rules(&rules).map_err(|error| error.to_string())?;
            }
            PolicyAct::Grant(user) => {
                let policy = self.policy_mut(name)?;
                policy.users.insert(*user);
                if policy.users.len() > POLICY_USERS_MAX {
                    reject!("a policy is granted to at most {POLICY_USERS_MAX} users");
                }
            }
            PolicyAct::Revoke(user) => {
                self.policy_mut(name)?.users.remove(user);
            }
            PolicyAct::Limit(limits) => {
                limits.check().map_err(|error| error.to_string())?;
                self.policy_mut(name)?.limits = *limits;
            }
        }
        let names: usize =
            self.policies.keys().map(|name| name.len() + POLICY_OVERHEAD_BYTES).sum();
        let bytes = names + self.policies.values().map(Policy::bytes).sum::<usize>();
        if bytes > POLICIES_BYTES_MAX && !matches!(act, PolicyAct::Drop | PolicyAct::Revoke(_)) {
            reject!("all policies together have at most {POLICIES_BYTES_MAX} bytes; drop some");
        }
        match act {
            PolicyAct::Set(_) | PolicyAct::Grant(_) => check_rights(&self.policies),
            PolicyAct::Create(_) | PolicyAct::Drop | PolicyAct::Revoke(_) | PolicyAct::Limit(_) => {
                Ok(())
            }
        }
    }

    fn create_policy(&mut self, name: &str, rules: &[PolicyRule]) -> Result<(), String> {
        if let Err(error) = check_name(name) {
            reject!("{error}");
        }
        check_rules(rules).map_err(|error| error.to_string())?;
        for rule in rules {
            self.check_keyspace(rule)?;
        }
        let rules = rules.iter().filter(|rule| !rule.rights.is_empty());
        let rules = rules.map(|rule| ((rule.keyspace, rule.prefix.clone()), rule.rights));
        let new = Policy { rules: rules.collect(), ..Policy::default() };
        match self.policies.get(name) {
            // The request may come again if its answer was lost.
            Some(existing) if *existing == new => return Ok(()),
            Some(_) => reject!("the policy {name} exists already"),
            None => {}
        }
        if self.policies.len() >= POLICIES_MAX {
            reject!("a network has at most {POLICIES_MAX} policies; drop some");
        }
        self.policies.insert(name.to_owned(), new);
        Ok(())
    }

    /// Forgets the rules for a keyspace that is dropped. Its id is never used again.
    pub(super) fn forget_rules_of(&mut self, keyspace: KeyspaceId) {
        for policy in self.policies.values_mut() {
            policy.rules.retain(|(only, _), _| *only != Some(keyspace));
        }
    }

    fn check_keyspace(&self, rule: &PolicyRule) -> Result<(), String> {
        match rule.keyspace {
            Some(id) if !self.keyspaces.contains_key(&id) => reject!("there is no such keyspace"),
            _ => Ok(()),
        }
    }

    fn policy_mut(&mut self, name: &str) -> Result<&mut Policy, String> {
        let missing = || match check_name(name) {
            Ok(()) => format!("there is no policy {name}"),
            Err(error) => error.to_string(),
        };
        self.policies.get_mut(name).ok_or_else(missing)
    }
}
