//! Who somebody is: what a certificate says, and nothing that it does not.
//!
//! A certificate of a network carries one DNS name, `<id>.<role>.<network>.dkv`, signed by the
//! network's CA. From it follow the network, the role and the id. All authorisation starts from
//! the [`Identity`] that was read off the peer's certificate; what a message claims about its
//! sender must agree with it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use dkv_base::id::{HolderId, NetworkId, NodeId};

/// Last label of every name.
const ZONE: &str = "dkv";

/// What the holder of a certificate may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The registration server.
    Server,
    /// Holds data and speaks Raft.
    Node,
    /// Reads and writes data.
    Client,
    /// Manages nodes and tokens, and whatever a client may do.
    Admin,
    /// Reads data.
    Reader,
}

impl Role {
    /// Whether somebody of another role will do where this one is wanted: an administrator may do
    /// whatever a client may, and a reader is a client that does not write.
    pub fn is_served_by(self, other: Self) -> bool {
        self == other || (self == Self::Client && matches!(other, Self::Admin | Self::Reader))
    }

    /// Its name in certificates, tokens and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Node => "node",
            Self::Client => "client",
            Self::Admin => "admin",
            Self::Reader => "reader",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, InvalidIdentity> {
        [Self::Server, Self::Node, Self::Client, Self::Admin, Self::Reader]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(InvalidIdentity)
    }
}

/// A name or a role that is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a dkv identity")]
pub struct InvalidIdentity;

/// Who somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The network that admitted it.
    pub network: NetworkId,
    /// What it may do.
    pub role: Role,
    /// Its id in that network.
    pub holder: HolderId,
}

impl Identity {
    /// The identity of a node.
    pub fn node(network: NetworkId, node: NodeId) -> Self {
        Self { network, role: Role::Node, holder: node.into() }
    }

    /// The node's id, if this is a node.
    pub fn as_node(&self) -> Option<NodeId> {
        (self.role == Role::Node).then_some(NodeId(self.holder.0))
    }

    /// The DNS name in its certificate.
    pub fn dns_name(&self) -> String {
        format!(
            "{}.{}.{}.{ZONE}",
            self.holder.0.simple(),
            self.role.as_str(),
            self.network.0.simple()
        )
    }

    /// Reads an identity off a DNS name.
    pub fn from_dns_name(name: &str) -> Result<Self, InvalidIdentity> {
        let mut labels = name.split('.');
        let mut label = || labels.next().ok_or(InvalidIdentity);
        let holder = HolderId(simple_uuid(label()?)?);
        let role = label()?.parse()?;
        let network = NetworkId(simple_uuid(label()?)?);
        let identity = Self { network, role, holder };
        // One spelling for each identity: upper case, hyphens or more labels are somebody else's.
        if identity.dns_name() == name { Ok(identity) } else { Err(InvalidIdentity) }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.holder)
    }
}

fn simple_uuid(text: &str) -> Result<Uuid, InvalidIdentity> {
    Uuid::try_parse(text).map_err(|_| InvalidIdentity)
}

#[cfg(test)]
mod tests;
