//! The users, their roles and what the roles may do: plain data.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Change;
use super::permissions::{Access, Granted, Permission};
use crate::error::EtcdError;

/// The user, and the role, that may do everything.
pub(crate) const ROOT: &str = "root";

/// Faces whose tokens are valid; each has a new key after a restart.
const SIGNERS_MAX: usize = 256;

/// All users and roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuthState {
    /// Whether requests are checked at all.
    pub(crate) enabled: bool,
    /// Rises with each change of a user or a role. etcd begins at 1.
    pub(crate) revision: u64,
    /// Those whose tokens are valid, the newest last.
    signers: Vec<Signer>,
    users: BTreeMap<String, User>,
    roles: BTreeMap<String, Role>,
}

/// A face, as far as its tokens have to be checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signer {
    /// Chosen at random when the face starts.
    pub(crate) id: String,
    /// Its public key (Ed25519), in base64.
    pub(crate) key: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct User {
    /// The bcrypt hash; none for a user whom only a certificate can name.
    password: Option<String>,
    roles: BTreeSet<String>,
    /// The revision since which the user has this password. Older tokens are invalid.
    since: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Role {
    /// By their ranges.
    permissions: Vec<Permission>,
}

impl Default for AuthState {
    fn default() -> Self {
        Self {
            enabled: false,
            revision: 1,
            signers: Vec::new(),
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
        }
    }
}

impl AuthState {
    /// Returns the public key of one who signs tokens.
    pub(crate) fn signer(&self, id: &str) -> Option<&Signer> {
        self.signers.iter().find(|signer| signer.id == id)
    }

    /// Adds a face whose tokens are valid. The oldest makes room if there are too many.
    pub(crate) fn add_signer(&mut self, signer: &Signer) -> Change {
        if self.signer(&signer.id).is_some() {
            return Ok(false);
        }
        if self.signers.len() >= SIGNERS_MAX {
            self.signers.remove(0);
        }
        self.signers.push(signer.clone());
        Ok(true)
    }

    fn user(&self, name: &str) -> Result<&User, EtcdError> {
        self.users.get(name).ok_or(EtcdError::USER_NOT_FOUND)
    }

    fn role(&self, name: &str) -> Result<&Role, EtcdError> {
        self.roles.get(name).ok_or(EtcdError::ROLE_NOT_FOUND)
    }

    /// Returns the hash of a user's password; the inner option is `None` for one who has none.
    pub(crate) fn password(&self, user: &str) -> Option<Option<&str>> {
        self.users.get(user).map(|user| user.password.as_deref())
    }

    /// Returns the revision since which a user has the present password; `None` if there is no such
    /// user.
    pub(crate) fn since(&self, user: &str) -> Option<u64> {
        self.users.get(user).map(|user| user.since)
    }

    /// Returns the names of all users.
    pub(crate) fn users(&self) -> Vec<String> {
        self.users.keys().cloned().collect()
    }

    /// Returns the names of all roles.
    pub(crate) fn roles(&self) -> Vec<String> {
        self.roles.keys().cloned().collect()
    }

    /// Returns the roles of a user.
    pub(crate) fn roles_of(&self, user: &str) -> Result<Vec<String>, EtcdError> {
        Ok(self.user(user)?.roles.iter().cloned().collect())
    }

    /// Returns the permissions of a role.
    pub(crate) fn permissions_of(&self, role: &str) -> Result<&[Permission], EtcdError> {
        Ok(&self.role(role)?.permissions)
    }

    /// Returns whether a user may do everything.
    pub(crate) fn is_root(&self, user: &str) -> bool {
        self.has_role(user, ROOT)
    }

    /// Returns whether a user has a role.
    pub(crate) fn has_role(&self, user: &str, role: &str) -> bool {
        self.users.get(user).is_some_and(|user| user.roles.contains(role))
    }

    /// Turns authentication on.
    pub(crate) fn enable(&mut self) -> Change {
        if self.enabled {
            return Ok(false);
        }
        let root = self.users.get(ROOT).ok_or(EtcdError::ROOT_USER_NOT_EXIST)?;
        if !root.roles.contains(ROOT) {
            return Err(EtcdError::ROOT_ROLE_NOT_EXIST);
        }
        self.enabled = true;
        Ok(true)
    }

    /// Turns authentication off. All tokens end.
    pub(crate) fn disable(&mut self) -> Change {
        if !self.enabled {
            return Ok(false);
        }
        self.enabled = false;
        self.signers.clear();
        // A face signs with the same key if it is turned on again.
        for user in self.users.values_mut() {
            user.since = self.revision + 1;
        }
        self.changed()
    }

    fn changed(&mut self) -> Change {
        self.revision += 1;
        Ok(true)
    }

    /// Adds a user with the hash of a password, or without one.
    pub(crate) fn add_user(&mut self, name: &str, password: Option<String>) -> Change {
        if name.is_empty() {
            return Err(EtcdError::USER_EMPTY);
        }
        if self.users.contains_key(name) {
            return Err(EtcdError::USER_ALREADY_EXIST);
        }
        let user = User { password, roles: BTreeSet::new(), since: self.revision + 1 };
        self.users.insert(name.to_owned(), user);
        self.changed()
    }

    /// Deletes a user.
    pub(crate) fn delete_user(&mut self, name: &str) -> Change {
        if self.enabled && name == ROOT {
            return Err(EtcdError::INVALID_AUTH_MGMT);
        }
        self.users.remove(name).ok_or(EtcdError::USER_NOT_FOUND)?;
        self.changed()
    }

    /// Changes the password of a user who has one.
    pub(crate) fn change_password(&mut self, name: &str, password: String) -> Change {
        let user = self.users.get_mut(name).ok_or(EtcdError::USER_NOT_FOUND)?;
        // As etcd: it takes the request, and the user stays one without a password.
        if user.password.is_some() {
            user.password = Some(password);
        }
        user.since = self.revision + 1;
        self.changed()
    }

    /// Gives a user a role.
    pub(crate) fn grant_role(&mut self, user: &str, role: &str) -> Change {
        self.user(user)?;
        if role != ROOT {
            self.role(role)?;
        }
        let user = self.users.get_mut(user).ok_or(EtcdError::USER_NOT_FOUND)?;
        if !user.roles.insert(role.to_owned()) {
            return Ok(false);
        }
        self.changed()
    }

    /// Takes a role from a user.
    pub(crate) fn revoke_role(&mut self, user: &str, role: &str) -> Change {
        if self.enabled && user == ROOT && role == ROOT {
            return Err(EtcdError::INVALID_AUTH_MGMT);
        }
        let user = self.users.get_mut(user).ok_or(EtcdError::USER_NOT_FOUND)?;
        if !user.roles.remove(role) {
            return Err(EtcdError::ROLE_NOT_GRANTED);
        }
        self.changed()
    }

    /// Adds a role.
    pub(crate) fn add_role(&mut self, name: &str) -> Change {
        if name.is_empty() {
            return Err(EtcdError::ROLE_EMPTY);
        }
        if self.roles.contains_key(name) {
            return Err(EtcdError::ROLE_ALREADY_EXIST);
        }
        self.roles.insert(name.to_owned(), Role::default());
        self.changed()
    }

    /// Deletes a role, also from its users.
    pub(crate) fn delete_role(&mut self, name: &str) -> Change {
        if self.enabled && name == ROOT {
            return Err(EtcdError::INVALID_AUTH_MGMT);
        }
        self.roles.remove(name).ok_or(EtcdError::ROLE_NOT_FOUND)?;
        for user in self.users.values_mut() {
            user.roles.remove(name);
        }
        self.changed()
    }

    /// Gives a role a permission; one for the same range is replaced.
    pub(crate) fn grant_permission(&mut self, role: &str, permission: Permission) -> Change {
        let role = self.roles.get_mut(role).ok_or(EtcdError::ROLE_NOT_FOUND)?;
        let range =
            |permission: &Permission| (permission.key.clone(), permission.range_end.clone());
        let (sought, permissions) = (range(&permission), &mut role.permissions);
        match permissions.binary_search_by_key(&sought, range) {
            Ok(at) => permissions[at] = permission,
            Err(at) => permissions.insert(at, permission),
        }
        self.changed()
    }

    /// Takes the permission for a range from a role.
    pub(crate) fn revoke_permission(&mut self, role: &str, key: &[u8], end: &[u8]) -> Change {
        let role = self.roles.get_mut(role).ok_or(EtcdError::ROLE_NOT_FOUND)?;
        let before = role.permissions.len();
        role.permissions.retain(|permission| permission.key != key || permission.range_end != end);
        if role.permissions.len() == before {
            return Err(EtcdError::PERMISSION_NOT_GRANTED);
        }
        self.changed()
    }
}

/// What each user may do, but for those with the role `root`, who may do everything.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    users: BTreeMap<String, Granted>,
}

impl Grants {
    /// Puts the permissions of each user's roles together.
    pub(crate) fn new(state: &AuthState) -> Self {
        let granted = |user: &User| {
            let roles = user.roles.iter().filter_map(|role| state.roles.get(role));
            Granted::new(&roles.flat_map(|role| &role.permissions).collect::<Vec<_>>())
        };
        let users = state.users.iter().filter(|(_, user)| !user.roles.contains(ROOT));
        Self { users: users.map(|(name, user)| (name.clone(), granted(user))).collect() }
    }

    /// Returns whether they let a user access a range.
    pub(crate) fn allow(&self, user: &str, access: Access, key: &[u8], range_end: &[u8]) -> bool {
        // As in a request: the first of all keys stands for one that is missing.
        let key = if key.is_empty() { &[0] } else { key };
        self.users.get(user).is_some_and(|granted| granted.allow(access, key, range_end))
    }
}
