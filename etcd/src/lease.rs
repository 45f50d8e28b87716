//! The service Lease.

use std::time::Duration;

use dkv_api::{Error, LeaseId, Receipt};
use futures::StreamExt;

use crate::context::Context;
use crate::error::EtcdError;
use crate::etcd::{Answers, Etcd, Requests};
use crate::limits::KEEP_ALIVES_AT_ONCE;
use crate::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, ResponseHeader,
};

impl Etcd {
    /// Grants a lease, under the id that the caller chose or a random one. A time shorter than one
    /// and a half elections is lengthened to that: a lease should outlive a change of leader.
    ///
    /// # Errors
    /// The id is taken, or the time is too long.
    pub async fn lease_grant(
        &self,
        _: &Context,
        request: LeaseGrantRequest,
    ) -> Result<LeaseGrantResponse, EtcdError> {
        let LeaseGrantRequest { ttl, id } = request;
        let lease = match id {
            0 => LeaseId::random(),
            id => lease_id(id).ok_or(EtcdError::LEASE_NOT_FOUND)?,
        };
        let store = self.store().await?;
        let view = store.view().await.map_err(|error| self.failed(error))?;
        let election = Duration::from_millis(view.settings.election_max_ms);
        let seconds = u64::try_from(ttl).unwrap_or_default().max(shortest_ttl(election));
        let ttl = Duration::from_secs(seconds);
        let granted = store.grant_lease_as(lease, ttl).await;
        let receipts = granted.map_err(|error| self.failed(error))?;
        let header = self.header_of(&receipts);
        let (id, ttl) = (lease.0 as i64, whole_seconds(ttl));
        Ok(LeaseGrantResponse { header, id, ttl, error: String::new() })
    }

    /// Ends a lease and deletes its keys.
    ///
    /// # Errors
    /// There is no such lease.
    pub async fn lease_revoke(
        &self,
        _: &Context,
        request: LeaseRevokeRequest,
    ) -> Result<LeaseRevokeResponse, EtcdError> {
        let lease = lease_id(request.id).ok_or(EtcdError::LEASE_NOT_FOUND)?;
        let store = self.store().await?;
        let revoked = store.revoke_lease_with_receipts(lease).await;
        let (_, receipts) = revoked.map_err(|error| self.failed(error))?;
        Ok(LeaseRevokeResponse { header: self.header_of(&receipts) })
    }

    /// Keeps leases alive, each message one. An answer follows a round to a majority, and has no
    /// time left if the lease has ended. Answers come in the order of the messages.
    pub fn lease_keep_alive(
        &self,
        context: Context,
        requests: Requests<LeaseKeepAliveRequest>,
    ) -> Answers<LeaseKeepAliveResponse> {
        let requests = self.permitted_requests(&context, requests);
        let etcd = self.clone();
        let answers = requests.map(move |request| {
            let etcd = etcd.clone();
            async move { etcd.keep_alive(request?.id).await }
        });
        let mut failed = false;
        answers
            .buffered(KEEP_ALIVES_AT_ONCE)
            // The stream ends with its first error.
            .take_while(move |answer| {
                let go_on = !failed;
                failed = answer.is_err();
                std::future::ready(go_on)
            })
            .boxed()
    }

    async fn keep_alive(&self, id: i64) -> Result<LeaseKeepAliveResponse, EtcdError> {
        let store = self.store().await?;
        let kept = match lease_id(id) {
            Some(lease) => store.refresh_lease_with_receipts(lease).await,
            None => Err(Error::NoLease { lease: LeaseId::default() }),
        };
        let (header, ttl) = match kept {
            Ok((ttl, receipts)) => (self.header_of(&receipts), whole_seconds(ttl)),
            Err(Error::NoLease { .. }) => (Some(self.known_header().await?), 0),
            Err(error) => return Err(self.failed(error)),
        };
        Ok(LeaseKeepAliveResponse { header, id, ttl })
    }

    /// Returns the header of an answer to a change of a lease. The keyspace has one shard.
    fn header_of(&self, receipts: &[Receipt]) -> Option<ResponseHeader> {
        receipts.first().map(|receipt| self.header(receipt, receipt.revision))
    }

    /// Returns the time that a lease has left, and its keys if that is asked for. A lease that does
    /// not exist has -1 seconds.
    ///
    /// # Errors
    /// There is no leader.
    pub async fn lease_time_to_live(
        &self,
        _: &Context,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, EtcdError> {
        let store = self.store().await?;
        let found = match lease_id(request.id) {
            Some(lease) => store.lease(lease).await,
            None => Err(Error::NoLease { lease: LeaseId::default() }),
        };
        let missing = LeaseTimeToLiveResponse {
            header: Some(self.known_header().await?),
            id: request.id,
            ttl: -1,
            ..LeaseTimeToLiveResponse::default()
        };
        let info = match found {
            // One that has ended has keys only for as long as it takes to delete them.
            Ok(info) if info.remaining.is_zero() => return Ok(missing),
            Ok(info) => info,
            Err(Error::NoLease { .. }) => return Ok(missing),
            Err(error) => return Err(self.failed(error)),
        };
        let keys = match request.keys {
            true => match store.lease_keys(info.id, usize::MAX).await {
                Ok(found) => found.keys,
                Err(Error::NoLease { .. }) => return Ok(missing),
                Err(error) => return Err(self.failed(error)),
            },
            false => Vec::new(),
        };
        let (ttl, granted_ttl) = (whole_seconds(info.remaining), whole_seconds(info.ttl));
        Ok(LeaseTimeToLiveResponse { ttl, granted_ttl, keys, ..missing })
    }

    /// Lists all leases.
    ///
    /// # Errors
    /// There is no leader.
    pub async fn lease_leases(
        &self,
        _: &Context,
        _: LeaseLeasesRequest,
    ) -> Result<LeaseLeasesResponse, EtcdError> {
        let store = self.store().await?;
        let mut leases = store.leases().await.map_err(|error| self.failed(error))?;
        leases.retain(|lease| !lease.remaining.is_zero());
        // As etcd: what ends first comes first.
        leases.sort_by_key(|lease| (lease.remaining, lease.id));
        let leases = leases.iter().map(|lease| LeaseStatus { id: lease.id.0 as i64 }).collect();
        Ok(LeaseLeasesResponse { header: Some(self.known_header().await?), leases })
    }
}

/// Returns a lease of the network; `None` if it can have no such id.
pub(crate) fn lease_id(id: i64) -> Option<LeaseId> {
    let lease = LeaseId(u64::try_from(id).ok()?);
    lease.is_valid().then_some(lease)
}

/// Returns the shortest time of a lease in seconds, as etcd computes it.
fn shortest_ttl(election: Duration) -> u64 {
    election.saturating_mul(3).as_millis().div_ceil(2 * 1000) as u64
}

fn whole_seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dkv_api::LeaseId;

    use super::{lease_id, shortest_ttl};

    #[test]
    fn the_shortest_time_is_one_and_a_half_elections_rounded_up() {
        assert_eq!(shortest_ttl(Duration::from_millis(1000)), 2);
        assert_eq!(shortest_ttl(Duration::from_millis(300)), 1);
        assert_eq!(shortest_ttl(Duration::from_millis(667)), 2);
    }

    #[test]
    fn ids_that_no_lease_has_are_none() {
        assert_eq!(lease_id(0), None);
        assert_eq!(lease_id(-1), None);
        assert_eq!(lease_id(i64::MAX), Some(LeaseId::LAST));
    }
}
