//! The service Election: the first candidate leads, and its value is what it proclaims.

use dkv_api::KeyRange;

use crate::context::Context;
use crate::error::{Code, EtcdError};
use crate::etcd::{
    AnswerSender, Answers, Etcd, answers_of, etcd_revision, own_revision, watch_options,
};
use crate::kv::pages::key_value;
use crate::limits::WATCH_ANSWERS_WAITING;
use crate::proto::etcdserverpb::TxnRequest;
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::{PutRequest, ResponseHeader};
use crate::proto::mvccpb::KeyValue;
use crate::proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use crate::recipes::{Candidate, created_at, first, operation, prefix, read_keys};

impl Etcd {
    /// Waits until a candidate leads.
    ///
    /// # Errors
    /// The lease does not exist, or has ended meanwhile.
    pub async fn campaign(
        &self,
        context: &Context,
        request: CampaignRequest,
    ) -> Result<CampaignResponse, EtcdError> {
        let CampaignRequest { name, lease, value } = request;
        let candidate = Candidate::new(&name, self.session(lease).await?);
        let transaction = TxnRequest {
            compare: vec![created_at(candidate.key.clone(), 0)],
            success: vec![candidate.put(value.clone())],
            failure: vec![candidate.get()],
        };
        let entered = self.txn(context, transaction).await?;
        let found = read_keys(entered.responses.first()).first();
        let rev = match found {
            Some(found) => found.create_revision,
            None => entered.header.map_or(0, |header| header.revision),
        };
        let leader = LeaderKey { name, key: candidate.key.clone(), rev, lease: candidate.lease };
        let waits = self.withdraws(&candidate, rev);
        if found.is_some_and(|found| found.value != value) {
            let leader = Some(leader.clone());
            self.proclaim(context, ProclaimRequest { leader, value }).await?;
        }
        self.wait_for_earlier(context, &candidate.prefix, rev - 1).await?;
        self.check_candidate(context, &candidate, rev, "election: session is expired").await?;
        waits.keep();
        Ok(CampaignResponse { header: entered.header, leader: Some(leader) })
    }

    /// Changes the value of a leader.
    ///
    /// # Errors
    /// The caller does not lead any more.
    pub async fn proclaim(
        &self,
        context: &Context,
        request: ProclaimRequest,
    ) -> Result<ProclaimResponse, EtcdError> {
        let ProclaimRequest { leader, value } = request;
        let LeaderKey { key, rev, lease, .. } = leader.ok_or_else(missing_leader)?;
        let put = PutRequest { key: key.clone(), value, lease, ..PutRequest::default() };
        let transaction = TxnRequest {
            compare: vec![created_at(key, rev)],
            success: vec![operation(Request::RequestPut(put))],
            failure: Vec::new(),
        };
        let done = self.txn(context, transaction).await?;
        if !done.succeeded {
            return Err(EtcdError::new(Code::Unknown, "election: not leader"));
        }
        Ok(ProclaimResponse { header: done.header })
    }

    /// Returns the leader.
    ///
    /// # Errors
    /// There is none.
    pub async fn leader(
        &self,
        context: &Context,
        request: LeaderRequest,
    ) -> Result<LeaderResponse, EtcdError> {
        let found = self.range(context, first(&prefix(&request.name))).await?;
        match found.kvs.into_iter().next() {
            Some(kv) => Ok(LeaderResponse { header: found.header, kv: Some(kv) }),
            None => Err(EtcdError::new(Code::Unknown, "election: no leader")),
        }
    }

    /// Gives up the lead, or the wish for it.
    ///
    /// # Errors
    /// There is no quorum.
    pub async fn resign(
        &self,
        context: &Context,
        request: ResignRequest,
    ) -> Result<ResignResponse, EtcdError> {
        let LeaderKey { key, rev, .. } = request.leader.ok_or_else(missing_leader)?;
        let done = self.withdraw(context, key, rev).await?;
        Ok(ResignResponse { header: done.header })
    }

    /// Shows each leader, and what it proclaims.
    pub fn observe(&self, context: Context, request: LeaderRequest) -> Answers<LeaderResponse> {
        let etcd = self.clone();
        answers_of(WATCH_ANSWERS_WAITING, |answers| async move {
            if let Err(error) = etcd.show_leaders(&context, &request.name, &answers).await {
                _ = answers.send(Err(error)).await;
            }
        })
    }

    async fn show_leaders(
        &self,
        context: &Context,
        name: &[u8],
        to: &AnswerSender<LeaderResponse>,
    ) -> Result<(), EtcdError> {
        let prefix = prefix(name);
        let (store, _place) = (self.store().await?, context.take_watch()?);
        let mut shown = 0;
        loop {
            let found = self.range(context, first(&prefix)).await?;
            let header = found.header.unwrap_or_default();
            let after = own_revision(header.revision).unwrap_or_default();
            let options = watch_options(after);
            let Some(leader) = found.kvs.into_iter().next() else {
                // The next candidate is not known, so anything may name it.
                let keys = KeyRange::Prefix(prefix.clone());
                let watch = store.watch(keys, options).await;
                let mut watch = watch.map_err(|error| self.failed(error))?;
                while let Some(changes) = self.next_changes(&mut watch).await? {
                    if changes.iter().any(|change| change.value.is_some()) {
                        break;
                    }
                }
                continue;
            };
            let key = leader.key.clone();
            // A look after a compaction may find what was shown before it.
            if leader.mod_revision > std::mem::replace(&mut shown, leader.mod_revision)
                && !show(to, header, leader).await
            {
                return Ok(());
            }
            let watch = store.watch(KeyRange::Key(key), options).await;
            let mut watch = watch.map_err(|error| self.failed(error))?;
            'leads: while let Some(changes) = self.next_changes(&mut watch).await? {
                for change in changes {
                    let Some(value) = change.value else { break 'leads };
                    let numbers = (change.created, change.revision, change.version);
                    let revision = etcd_revision(change.revision);
                    let header = ResponseHeader { revision, ..header };
                    let kv = key_value(change.key, value, numbers, change.lease);
                    shown = revision;
                    if !show(to, header, kv).await {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Returns whether the caller still listens.
async fn show(to: &AnswerSender<LeaderResponse>, header: ResponseHeader, kv: KeyValue) -> bool {
    to.send(Ok(LeaderResponse { header: Some(header), kv: Some(kv) })).await.is_ok()
}

fn missing_leader() -> EtcdError {
    EtcdError::new(Code::Unknown, "\"leader\" field must be provided")
}
