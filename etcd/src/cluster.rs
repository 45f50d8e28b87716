//! The service Cluster: the nodes of the network as members.

use dkv_api::{NetworkView, NodeInfo, NodeState};

use crate::context::Context;
use crate::error::{Code, EtcdError};
use crate::etcd::Etcd;
use crate::identity::member_id;
use crate::proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse, ResponseHeader,
};

impl Etcd {
    /// Lists the nodes. The URLs of this network's faces are dealt out to them, in order.
    ///
    /// # Errors
    /// The coordinator does not answer, and the caller wants an answer that is not out of date.
    pub async fn member_list(
        &self,
        _: &Context,
        request: MemberListRequest,
    ) -> Result<MemberListResponse, EtcdError> {
        let client = self.client();
        let view = match request.linearizable {
            true => client.refresh().await,
            false => client.view().await,
        };
        let view = view.map_err(|error| self.failed(error))?;
        let store = self.store().await?;
        let shards = view.shards_of(store.keyspace_id());
        let learners = shards.first().map_or(&[][..], |shard| &shard.learners);
        let is_learner = |node: &NodeInfo| learners.contains(&node.id);
        let members = members(&view, &self.options().client_urls, is_learner);
        // As etcd's, the header has no revision.
        let header = ResponseHeader { revision: 0, ..self.known_header().await? };
        Ok(MemberListResponse { header: Some(header), members })
    }

    /// Refuses: a node joins by itself.
    ///
    /// # Errors
    /// Always.
    pub async fn member_add(
        &self,
        _: &Context,
        request: MemberAddRequest,
    ) -> Result<MemberAddResponse, EtcdError> {
        if request.peer_ur_ls.is_empty() || !request.peer_ur_ls.iter().all(|url| is_url(url)) {
            return Err(EtcdError::MEMBER_BAD_URLS);
        }
        let view = self.client().view().await.map_err(|error| self.failed(error))?;
        if view.nodes.iter().any(|node| request.peer_ur_ls.contains(&peer_url(node))) {
            return Err(EtcdError::PEER_URL_EXIST);
        }
        Err(refusal("a node joins by itself: start dkv-node SERVER with a node token"))
    }

    /// Refuses: an administrator removes nodes.
    ///
    /// # Errors
    /// Always.
    pub async fn member_remove(
        &self,
        _: &Context,
        request: MemberRemoveRequest,
    ) -> Result<MemberRemoveResponse, EtcdError> {
        let node = self.member(request.id).await?;
        let why = format!("an administrator removes a node: dkv SERVER remove {}", node.name);
        Err(refusal(&why))
    }

    /// Refuses: a node announces its address by itself.
    ///
    /// # Errors
    /// Always.
    pub async fn member_update(
        &self,
        _: &Context,
        request: MemberUpdateRequest,
    ) -> Result<MemberUpdateResponse, EtcdError> {
        self.member(request.id).await?;
        Err(refusal("a node announces its address by itself"))
    }

    /// Refuses: the network gives votes by itself.
    ///
    /// # Errors
    /// Always.
    pub async fn member_promote(
        &self,
        _: &Context,
        request: MemberPromoteRequest,
    ) -> Result<MemberPromoteResponse, EtcdError> {
        let node = self.member(request.id).await?;
        let store = self.store().await?;
        let view = self.client().view().await.map_err(|error| self.failed(error))?;
        let mut shards = view.shards_of(store.keyspace_id()).iter();
        if shards.any(|shard| shard.learners.contains(&node.id)) {
            // It is promoted once it has caught up.
            return Err(EtcdError::LEARNER_NOT_READY);
        }
        Err(EtcdError::MEMBER_NOT_LEARNER)
    }

    async fn member(&self, id: u64) -> Result<NodeInfo, EtcdError> {
        let view = self.client().view().await.map_err(|error| self.failed(error))?;
        let found = view.nodes.into_iter().find(|node| member_id(node.id) == id);
        found.ok_or(EtcdError::MEMBER_NOT_FOUND)
    }
}

/// Returns the nodes as members, in the order of their ids.
fn members(
    view: &NetworkView,
    client_urls: &[String],
    is_learner: impl Fn(&NodeInfo) -> bool,
) -> Vec<Member> {
    let here = |node: &&NodeInfo| node.state != NodeState::Left;
    let mut members: Vec<Member> = view
        .nodes
        .iter()
        .filter(here)
        .map(|node| Member {
            id: member_id(node.id),
            name: node.name.clone(),
            peer_ur_ls: vec![peer_url(node)],
            client_ur_ls: Vec::new(),
            is_learner: is_learner(node),
        })
        .collect();
    members.sort_by_key(|member| member.id);
    let number = members.len().max(1);
    for (index, url) in client_urls.iter().enumerate() {
        if let Some(member) = members.get_mut(index % number) {
            member.client_ur_ls.push(url.clone());
        }
    }
    members
}

fn peer_url(node: &NodeInfo) -> String {
    format!("https://{}", node.address)
}

fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| {
        rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
    })
}

fn refusal(why: &str) -> EtcdError {
    EtcdError::new(Code::FailedPrecondition, format!("etcdserver: {why}"))
}
