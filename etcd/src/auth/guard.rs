//! The check of each request: who asks, and whether that is enough.

use std::collections::BTreeMap;
use std::sync::Arc;

use dkv_base::audit::{self, What};
use dkv_base::logging::brief;
use futures::StreamExt;
use futures::stream;
use hyper::HeaderMap;

use super::needs::{Caller, Guarded, Needs};
use super::standing::StandingRight;
use crate::access::Rules;
use crate::access::permissions::Access;
use crate::context::Context;
use crate::error::{Code, EtcdError};
use crate::etcd::{Answers, Etcd, Requests};
use crate::lease::lease_id;
use crate::limits::{LEASE_KEYS_CHECKED_MAX, TXN_OPS_MAX};

/// Most bytes of a key that the audit log shows.
const KEY_SHOWN_BYTES: usize = 64;

/// Who asks, as far as it is known at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// Anybody: authentication is off, or not known to be on.
    Anybody,
    /// A user.
    User(String),
    /// Somebody without a valid token.
    Nobody,
}

/// Returns the token that a request shows, in whichever field.
pub(crate) fn token(headers: &HeaderMap) -> Option<&str> {
    let fields = ["token", "authorization", "grpc-metadata-token", "grpc-metadata-authorization"];
    fields.into_iter().find_map(|field| headers.get(field)?.to_str().ok())
}

/// Returns the beginning of a key for the audit log.
fn shown(key: &[u8]) -> String {
    brief(&key.get(..KEY_SHOWN_BYTES).unwrap_or(key).escape_ascii().to_string())
}

/// Returns the leases whose keys have to be looked up, each once, and what for.
///
/// # Errors
/// There are too many.
fn accesses(
    needs: &Needs,
    counts: impl Fn(Access) -> bool,
) -> Result<BTreeMap<i64, Vec<Access>>, EtcdError> {
    let mut leases = BTreeMap::<i64, Vec<Access>>::new();
    for (access, lease) in needs.leases.iter().filter(|(access, _)| counts(*access)) {
        leases.entry(*lease).or_default().push(*access);
    }
    if leases.len() > TXN_OPS_MAX { Err(EtcdError::TOO_MANY_OPS) } else { Ok(leases) }
}

impl Etcd {
    /// Returns who asks, as far as it is known at once. It is for shares of memory, and decides
    /// nothing else.
    pub(crate) fn asker(&self, token: Option<&str>, certificate_name: Option<&str>) -> Asker {
        let known = self.shared().known().filter(|known| known.is_enabled());
        let Some(known) = known else { return Asker::Anybody };
        let context = Context {
            token: token.map(str::to_owned),
            certificate_name: certificate_name.map(str::to_owned),
            ..Context::default()
        };
        match self.user_of(&known.rules, &context) {
            Ok(Some(user)) => Asker::User(user),
            Ok(None) | Err(_) => Asker::Nobody,
        }
    }

    /// Checks that the caller may make a request.
    ///
    /// # Errors
    /// The caller has to say who it is, or may not; the token is invalid.
    pub(crate) async fn permit(
        &self,
        context: &Context,
        request: &(impl Guarded + Sync),
    ) -> Result<(), EtcdError> {
        let rules = self.rules().await?;
        if !rules.state.auth.enabled && rules.state.alarms.is_empty() {
            return Ok(());
        }
        let Err(_) = self.check(&rules, context, request).await else { return Ok(()) };
        // It may have been granted meanwhile, at another face.
        let rules = self.rules_again().await?;
        let checked = self.check(&rules, context, request).await;
        if let Err(error) = &checked {
            self.note_denied(context, request, error);
        }
        checked
    }

    /// Tells that a request was denied, if it was.
    fn note_denied<Q: Guarded>(&self, context: &Context, request: &Q, error: &EtcdError) {
        let is_denial = [
            EtcdError::PERMISSION_DENIED,
            EtcdError::USER_EMPTY,
            EtcdError::INVALID_AUTH_TOKEN,
            EtcdError::AUTH_OLD_REVISION,
        ];
        if !is_denial.contains(error) {
            return;
        }
        let name = std::any::type_name::<Q>().rsplit("::").next().unwrap_or_default();
        let needs = request.needs();
        let keys = needs.keys.first().map(|(_, key, end)| match end.is_empty() {
            true => format!("key \"{}\"", shown(key)),
            false => format!("the keys from \"{}\" to \"{}\"", shown(key), shown(end)),
        });
        let what = What { keys, ..What::new("etcd request", name) };
        audit::denied(self.caller(context), what, error.message());
    }

    /// Returns a stream of answers, if the caller may make the request, and as long as it may.
    pub(crate) fn permitted<Q: Guarded + Send + Sync + 'static, A: Send + 'static>(
        &self,
        context: Context,
        request: Q,
        call: impl FnOnce(Self, Context, Q) -> Answers<A> + Send + 'static,
    ) -> Answers<A> {
        let etcd = self.clone();
        let permitted = async move {
            let rules = match etcd.permit(&context, &request).await {
                Ok(()) => etcd.rules().await,
                Err(error) => Err(error),
            };
            match rules {
                Ok(rules) => {
                    let asked = Context { bytes: None, ..context.clone() };
                    let right = StandingRight::new(&etcd, &rules, &asked, request.needs());
                    let answers = call(etcd.clone(), context, request);
                    etcd.while_permitted(asked, right, answers)
                }
                Err(error) => stream::once(async { Err(error) }).boxed(),
            }
        };
        stream::once(permitted).flatten().boxed()
    }

    /// Passes on the requests of a stream that the caller may make; the first other one ends it.
    pub(crate) fn permitted_requests<Q: Guarded + Send + Sync + 'static>(
        &self,
        context: &Context,
        requests: Requests<Q>,
    ) -> Requests<Q> {
        let (etcd, context) = (self.clone(), Arc::new(context.clone()));
        let checked = requests.then(move |request| {
            let (etcd, context) = (etcd.clone(), Arc::clone(&context));
            async move {
                let request = request?;
                etcd.permit(&context, &request).await?;
                Ok(request)
            }
        });
        checked.boxed()
    }

    async fn check(
        &self,
        rules: &Rules,
        context: &Context,
        request: &(impl Guarded + Sync),
    ) -> Result<(), EtcdError> {
        if rules.state.auth.enabled {
            request.check()?;
            self.check_caller(rules, context, &request.needs()).await?;
        }
        rules.state.alarms.check(request.effect())
    }

    pub(super) async fn check_caller(
        &self,
        rules: &Rules,
        context: &Context,
        needs: &Needs,
    ) -> Result<(), EtcdError> {
        // Clients show their old token when they ask for a new one.
        if needs.caller == Caller::Anyone {
            return Ok(());
        }
        let user = self.user_of(rules, context)?.ok_or(EtcdError::USER_EMPTY)?;
        self.check_user(rules, &user, needs).await
    }

    /// Checks that a user may what is needed.
    pub(super) async fn check_user(
        &self,
        rules: &Rules,
        user: &str,
        needs: &Needs,
    ) -> Result<(), EtcdError> {
        let state = &rules.state.auth;
        if state.is_root(user) {
            return Ok(());
        }
        let enough = match &needs.caller {
            Caller::Anyone | Caller::User => state.since(user).is_some(),
            Caller::Root if state.since(user).is_none() => return Err(EtcdError::USER_NOT_FOUND),
            Caller::Root => false,
            Caller::RootOr(other) => other == user,
            Caller::RootOrRole(role) => state.has_role(user, role),
        };
        let may =
            |access: Access, key: &[u8], end: &[u8]| rules.grants.allow(user, access, key, end);
        if !enough || !needs.keys.iter().all(|(access, key, end)| may(*access, key, end)) {
            return Err(EtcdError::PERMISSION_DENIED);
        }
        // Who may access all keys may access those of any lease.
        let leases = accesses(needs, |access| !may(access, &[0], &[0]))?;
        for (lease, accesses) in leases {
            let keys = self.keys_of_lease(lease).await?;
            let may_all = |key| accesses.iter().all(|access| may(*access, key, &[]));
            if !keys.iter().all(|key| may_all(key)) {
                return Err(EtcdError::PERMISSION_DENIED);
            }
        }
        Ok(())
    }

    /// Returns the user who asks, by a token or else a certificate.
    pub(super) fn user_of(
        &self,
        rules: &Rules,
        context: &Context,
    ) -> Result<Option<String>, EtcdError> {
        match &context.token {
            Some(token) => {
                let token = token.strip_prefix("Bearer ").unwrap_or(token);
                self.auth().tokens.user(&rules.state.auth, token).map(Some)
            }
            None => Ok(context.certificate_name.clone()),
        }
    }

    /// Returns the keys of a lease; none if there is no such lease.
    async fn keys_of_lease(&self, lease: i64) -> Result<Vec<bytes::Bytes>, EtcdError> {
        let Some(lease) = lease_id(lease) else { return Ok(Vec::new()) };
        let store = self.store().await?;
        match store.lease_keys(lease, LEASE_KEYS_CHECKED_MAX).await {
            Ok(found) if found.more => {
                let why = "etcdserver: the lease has too many keys to check the permission for all";
                Err(EtcdError::new(Code::ResourceExhausted, why))
            }
            Ok(found) => Ok(found.keys),
            Err(dkv_api::Error::NoLease { .. }) => Ok(Vec::new()),
            Err(error) => Err(self.failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::etcdserverpb::request_op::Request;
    use crate::proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest};

    fn puts(leases: impl Iterator<Item = i64>) -> TxnRequest {
        let put = |lease: i64| PutRequest {
            key: lease.to_string().into(),
            lease,
            ..PutRequest::default()
        };
        let operation = |lease| RequestOp { request: Some(Request::RequestPut(put(lease))) };
        TxnRequest { success: leases.map(operation).collect(), ..TxnRequest::default() }
    }

    #[test]
    fn a_transaction_has_its_size_checked_before_its_leases_are_looked_up() {
        assert_eq!(puts(1..100_000).check(), Err(EtcdError::TOO_MANY_OPS));
        assert_eq!(puts(1..129).check(), Ok(()));
    }

    #[test]
    fn each_lease_is_looked_up_once_and_no_more_than_some() {
        let mut needs = puts([7, 8, 7, 9].into_iter()).needs();
        needs.leases.insert((Access::Read, 7));
        let found = accesses(&needs, |_| true).unwrap();
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [7, 8, 9]);
        assert_eq!(found[&7].len(), 2);
        let found = accesses(&needs, |access| access == Access::Read).unwrap();
        assert_eq!(found.len(), 1);
        let many = puts(1..=TXN_OPS_MAX as i64 + 1).needs();
        assert_eq!(accesses(&many, |_| true), Err(EtcdError::TOO_MANY_OPS));
    }
}
