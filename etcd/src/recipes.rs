//! What locks and elections have in common, in the layout of etcd's own package: a candidate is a
//! key `name/lease` of a lease, and the one that was created first has it.

use bytes::Bytes;
use dkv_api::{Error, KeyChange, KeyRange, Revision, Watch};

use crate::context::Context;
use crate::error::{Code, EtcdError};
use crate::etcd::{Etcd, own_revision, watch_options};
use crate::limits::SESSION_TTL;
use crate::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::response_op::Response;
use crate::proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader, ResponseOp,
    TxnRequest,
};
use crate::proto::mvccpb::KeyValue;

/// A key that stands for a candidate.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    /// Prefix of all candidates' keys.
    pub(crate) prefix: Bytes,
    pub(crate) key: Bytes,
    pub(crate) lease: i64,
}

impl Candidate {
    /// Returns the candidate of a lease.
    pub(crate) fn new(name: &[u8], lease: i64) -> Self {
        let prefix = prefix(name);
        let key = [&prefix[..], format!("{lease:x}").as_bytes()].concat().into();
        Self { prefix, key, lease }
    }

    /// Returns the put of its key.
    pub(crate) fn put(&self, value: Bytes) -> RequestOp {
        let (key, lease) = (self.key.clone(), self.lease);
        operation(Request::RequestPut(PutRequest { key, value, lease, ..PutRequest::default() }))
    }

    /// Returns the read of its key.
    pub(crate) fn get(&self) -> RequestOp {
        operation(Request::RequestRange(get(self.key.clone())))
    }
}

/// Returns the prefix of the keys of all candidates.
pub(crate) fn prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// Returns the range of the keys of all candidates: its first key and its end.
pub(crate) fn candidates(name: &[u8]) -> (Bytes, Bytes) {
    let prefix = prefix(name);
    let end = after_prefix(&prefix);
    (prefix, end)
}

pub(crate) fn operation(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// Returns the read of a key.
pub(crate) fn get(key: Bytes) -> RangeRequest {
    RangeRequest { key, ..RangeRequest::default() }
}

/// Returns the read of the candidate that was created first.
pub(crate) fn first(prefix: &Bytes) -> RangeRequest {
    RangeRequest {
        sort_target: SortTarget::Create.into(),
        sort_order: SortOrder::Ascend.into(),
        limit: 1,
        ..all(prefix)
    }
}

/// Returns the read of the last candidate that was created up to a revision, without its value.
fn last_before(prefix: &Bytes, revision: i64) -> RangeRequest {
    RangeRequest {
        sort_target: SortTarget::Create.into(),
        sort_order: SortOrder::Descend.into(),
        limit: 1,
        max_create_revision: revision,
        keys_only: true,
        ..all(prefix)
    }
}

fn all(prefix: &Bytes) -> RangeRequest {
    RangeRequest { range_end: after_prefix(prefix), ..get(prefix.clone()) }
}

/// Returns the first key after those with a prefix that ends with a slash.
fn after_prefix(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        // A slash is not the last of all bytes.
        *last += 1;
    }
    end.into()
}

/// Returns the compare that a key was created at a revision; zero if it does not exist.
pub(crate) fn created_at(key: Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key,
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Compare::default()
    }
}

/// Returns the delete of a key.
pub(crate) fn delete(key: Bytes) -> RequestOp {
    let delete = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
    operation(Request::RequestDeleteRange(delete))
}

/// Returns the keys that an operation of a transaction has read.
pub(crate) fn read_keys(response: Option<&ResponseOp>) -> &[KeyValue] {
    match response.and_then(|response| response.response.as_ref()) {
        Some(Response::ResponseRange(range)) => &range.kvs,
        _ => &[],
    }
}

impl Etcd {
    /// Returns the lease that a caller names, or grants one.
    pub(crate) async fn session(&self, lease: i64) -> Result<i64, EtcdError> {
        if lease != 0 {
            return Ok(lease);
        }
        let granted = self.store().await?.grant_lease(SESSION_TTL).await;
        let lease = granted.map_err(|error| self.failed(error))?;
        Ok(lease.0 as i64)
    }

    /// Waits until no candidate is left that was created up to a revision.
    pub(crate) async fn wait_for_earlier(
        &self,
        context: &Context,
        prefix: &Bytes,
        revision: i64,
    ) -> Result<(), EtcdError> {
        context.begin_to_wait();
        loop {
            let earlier = self.range(context, last_before(prefix, revision)).await?;
            let at = earlier.header.as_ref().map_or(0, |header| header.revision);
            let Some(last) = earlier.kvs.into_iter().next() else { return Ok(()) };
            let after = own_revision(at).unwrap_or_default();
            self.wait_for_deletion(context, last.key, after).await?;
        }
    }

    /// Waits until a key is deleted after a revision, or until the history no longer tells.
    async fn wait_for_deletion(
        &self,
        context: &Context,
        key: Bytes,
        after: Revision,
    ) -> Result<(), EtcdError> {
        let (store, _place) = (self.store().await?, context.take_watch()?);
        let watch = store.watch(KeyRange::Key(key), watch_options(after)).await;
        let mut watch = watch.map_err(|error| self.failed(error))?;
        // Without the history after the revision, another look tells whether the key is there.
        while let Some(changes) = self.next_changes(&mut watch).await? {
            if changes.iter().any(|change| change.value.is_none()) {
                break;
            }
        }
        Ok(())
    }

    /// Returns the next changes that a watch shows; `None` if they are compacted already.
    pub(crate) async fn next_changes(
        &self,
        watch: &mut Watch,
    ) -> Result<Option<Vec<KeyChange>>, EtcdError> {
        match watch.next_page().await {
            Ok(page) => Ok(Some(page.changes)),
            Err(Error::Compacted { .. }) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Reads the key of a candidate that has come first, which is gone if its lease has ended
    /// meanwhile; returns the header.
    pub(crate) async fn check_candidate(
        &self,
        context: &Context,
        candidate: &Candidate,
        created: i64,
        expired: &'static str,
    ) -> Result<Option<ResponseHeader>, EtcdError> {
        let own = RangeRequest { keys_only: true, ..get(candidate.key.clone()) };
        let own = self.range(context, own).await?;
        match own.kvs.first() {
            Some(key) if key.create_revision == created => Ok(own.header),
            _ => Err(EtcdError::new(Code::Unknown, expired)),
        }
    }

    /// Returns a guard that deletes a candidate's key when it is dropped: the caller may go away
    /// while it waits.
    pub(crate) fn withdraws(&self, candidate: &Candidate, created: i64) -> Withdraws {
        Withdraws { etcd: Some(self.clone()), key: candidate.key.clone(), created }
    }

    /// Deletes the key of a candidate, if it is still the one that was created at a revision.
    pub(crate) async fn withdraw(
        &self,
        context: &Context,
        key: Bytes,
        created: i64,
    ) -> Result<crate::proto::etcdserverpb::TxnResponse, EtcdError> {
        let transaction = TxnRequest {
            compare: vec![created_at(key.clone(), created)],
            success: vec![delete(key)],
            failure: Vec::new(),
        };
        self.txn(context, transaction).await
    }
}

/// Deletes the key of a candidate when it is dropped.
pub(crate) struct Withdraws {
    etcd: Option<Etcd>,
    key: Bytes,
    created: i64,
}

impl Withdraws {
    /// Keeps the key.
    pub(crate) fn keep(mut self) {
        self.etcd = None;
    }
}

impl Drop for Withdraws {
    fn drop(&mut self) {
        let Some(etcd) = self.etcd.take() else { return };
        let (key, created) = (self.key.clone(), self.created);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                _ = etcd.withdraw(&Context::default(), key, created).await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_named_as_etcd_names_them() {
        let candidate = Candidate::new(b"lock", 0x1f_2e3d);
        assert_eq!(
            (&candidate.prefix[..], &candidate.key[..]),
            (&b"lock/"[..], &b"lock/1f2e3d"[..])
        );
        assert_eq!(&after_prefix(&candidate.prefix)[..], b"lock0");
    }
}
