//! The service Lock: the first candidate has the lock, the others wait in line.

use crate::context::Context;
use crate::error::EtcdError;
use crate::etcd::Etcd;
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::{DeleteRangeRequest, TxnRequest};
use crate::proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use crate::recipes::{Candidate, created_at, first, operation, read_keys};

impl Etcd {
    /// Waits for a lock and takes it, for as long as the lease lives.
    ///
    /// # Errors
    /// The lease does not exist, or has ended meanwhile.
    pub async fn lock(
        &self,
        context: &Context,
        request: LockRequest,
    ) -> Result<LockResponse, EtcdError> {
        let candidate = Candidate::new(&request.name, self.session(request.lease).await?);
        let owner = || operation(Request::RequestRange(first(&candidate.prefix)));
        let transaction = TxnRequest {
            compare: vec![created_at(candidate.key.clone(), 0)],
            success: vec![candidate.put(bytes::Bytes::new()), owner()],
            failure: vec![candidate.get(), owner()],
        };
        let entered = self.txn(context, transaction).await?;
        let header = entered.header;
        let created = match entered.succeeded {
            true => header.map_or(0, |header| header.revision),
            // The lease waits or has the lock already.
            false => {
                read_keys(entered.responses.first()).first().map_or(0, |kv| kv.create_revision)
            }
        };
        let owner = read_keys(entered.responses.get(1)).first();
        let waits = self.withdraws(&candidate, created);
        let header = match owner {
            Some(owner) if owner.create_revision != created => {
                self.wait_for_earlier(context, &candidate.prefix, created - 1).await?;
                let expired = "mutex: session is expired";
                self.check_candidate(context, &candidate, created, expired).await?
            }
            _ => header,
        };
        waits.keep();
        Ok(LockResponse { header, key: candidate.key })
    }

    /// Releases a lock.
    ///
    /// # Errors
    /// As for [`delete_range`](Self::delete_range).
    pub async fn unlock(
        &self,
        context: &Context,
        request: UnlockRequest,
    ) -> Result<UnlockResponse, EtcdError> {
        let delete = DeleteRangeRequest { key: request.key, ..DeleteRangeRequest::default() };
        let deleted = self.delete_range(context, delete).await?;
        Ok(UnlockResponse { header: deleted.header })
    }
}
