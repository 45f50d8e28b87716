//! Identities: who the holder of a certificate is.
//!
//! A certificate of a network carries one DNS name, `<id>.<role>.<network>.dkv`, signed by the
//! network's CA; `<id>.<user>.<role>.<network>.dkv` if the holder is a user. The name gives the
//! network, the role, the user and the id. All authorisation starts from the
//! [`Identity`] in the peer's certificate; what a message claims about its sender must agree with
//! it.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::user::User;
use dkv_base::audit::Who;
use dkv_base::id::{HolderId, NetworkId, NodeId};

/// Last label of every DNS name.
const ZONE: &str = "dkv";

/// What the holder of a certificate may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The registration server.
    Server,
    /// A node, which holds data and speaks Raft.
    Node,
    /// A client, which reads and writes data.
    Client,
    /// An administrator, which manages nodes and tokens and may do what a client may.
    Admin,
    /// A client that may only read.
    Reader,
}

impl Role {
    /// Whether a token of the role `other` may be used where this role is required: an
    /// administrator may do what a client may, and a reader is a client that does not write.
    pub fn is_served_by(self, other: Self) -> bool {
        self == other || (self == Self::Client && matches!(other, Self::Admin | Self::Reader))
    }

    /// Whether a holder of the role may be a user. Nodes act for all users, and are limited by none
    /// of their policies.
    pub fn may_name_user(self) -> bool {
        matches!(self, Self::Client | Self::Admin | Self::Reader)
    }

    /// The name of the role in certificates, tokens and on the command line.
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

/// A DNS name or a role that is none of dkv's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a dkv identity")]
pub struct InvalidIdentity;

/// The identity of the holder of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The network that admitted the holder.
    pub network: NetworkId,
    /// The role, which decides what the holder may do.
    pub role: Role,
    /// The id of the holder in that network.
    pub holder: HolderId,
    /// The user, whose policies limit the rights of the role; `None` if they are not limited.
    /// Nodes and servers are nobody's.
    pub user: Option<User>,
}

impl Identity {
    /// The identity of a node.
    pub fn node(network: NetworkId, node: NodeId) -> Self {
        Self { network, role: Role::Node, holder: node.into(), user: None }
    }

    /// The id of the node, if the holder is one.
    pub fn as_node(&self) -> Option<NodeId> {
        (self.role == Role::Node).then_some(NodeId(self.holder.0))
    }

    /// The holder as somebody who asks from an address, and perhaps for a user, in the audit log.
    pub fn audited(&self, asked: Option<User>, address: SocketAddr) -> Who {
        Who {
            role: Some(self.role.as_str()),
            // One that is a user itself appears as that one, whomever it asks for.
            user: self.user.or(asked).map(|user| user.to_string()),
            holder: Some(self.holder.0),
            address: Some(address.into()),
            ..Who::default()
        }
    }

    /// The DNS name in the holder's certificate.
    pub fn dns_name(&self) -> String {
        let user = self.user.map(|user| format!("{user}.")).unwrap_or_default();
        let (holder, network) = (self.holder.0.simple(), self.network.0.simple());
        format!("{holder}.{user}{}.{network}.{ZONE}", self.role.as_str())
    }

    /// Parses the DNS name of a certificate.
    ///
    /// # Errors
    /// If the name is not exactly one that [`dns_name`](Self::dns_name) makes.
    pub fn from_dns_name(name: &str) -> Result<Self, InvalidIdentity> {
        let mut labels = name.split('.');
        let mut label = || labels.next().ok_or(InvalidIdentity);
        let holder = HolderId(simple_uuid(label()?)?);
        let user = match name.split('.').count() {
            5 => Some(label()?.parse::<User>().map_err(|_| InvalidIdentity)?),
            _ => None,
        };
        let role: Role = label()?.parse()?;
        if user.is_some() && !role.may_name_user() {
            return Err(InvalidIdentity);
        }
        let network = NetworkId(simple_uuid(label()?)?);
        let identity = Self { network, role, holder, user };
        // Each identity has one spelling: upper case, hyphens and further labels are refused.
        if identity.dns_name() == name { Ok(identity) } else { Err(InvalidIdentity) }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.holder)?;
        self.user.map_or(Ok(()), |user| write!(f, " ({user})"))
    }
}

fn simple_uuid(text: &str) -> Result<Uuid, InvalidIdentity> {
    Uuid::try_parse(text).map_err(|_| InvalidIdentity)
}

#[cfg(test)]
mod tests;
