//! The check of each request: who asks, and whether that is enough.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream;

use super::needs::{Caller, Guarded, Needs};
use crate::access::Rules;
use crate::access::permissions::Access;
use crate::context::Context;
use crate::error::EtcdError;
use crate::etcd::{Answers, Etcd, Requests};
use crate::lease::lease_id;

impl Etcd {
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
        self.check(&rules, context, request).await
    }

    /// Returns a stream of answers, if the caller may make the request.
    pub(crate) fn permitted<Q: Guarded + Send + Sync + 'static, A: Send + 'static>(
        &self,
        context: Context,
        request: Q,
        call: impl FnOnce(Self, Context, Q) -> Answers<A> + Send + 'static,
    ) -> Answers<A> {
        let etcd = self.clone();
        let permitted = async move {
            match etcd.permit(&context, &request).await {
                Ok(()) => call(etcd, context, request),
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
            self.check_caller(rules, context, &request.needs()).await?;
        }
        rules.state.alarms.check(request.effect())
    }

    async fn check_caller(
        &self,
        rules: &Rules,
        context: &Context,
        needs: &Needs,
    ) -> Result<(), EtcdError> {
        // Clients show their old token when they ask for a new one.
        if needs.caller == Caller::Anyone {
            return Ok(());
        }
        let state = &rules.state.auth;
        let user = &self.user_of(rules, context)?.ok_or(EtcdError::USER_EMPTY)?;
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
        for (access, lease) in &needs.leases {
            // Who may access all keys may access those of any lease.
            if may(*access, &[0], &[0]) {
                continue;
            }
            let keys = self.keys_of_lease(*lease).await?;
            if !keys.iter().all(|key| may(*access, key, &[])) {
                return Err(EtcdError::PERMISSION_DENIED);
            }
        }
        Ok(())
    }

    /// Returns the user who asks, by a token or else a certificate.
    fn user_of(&self, rules: &Rules, context: &Context) -> Result<Option<String>, EtcdError> {
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
        match store.lease_keys(lease, usize::MAX).await {
            Ok(found) => Ok(found.keys),
            Err(dkv_api::Error::NoLease { .. }) => Ok(Vec::new()),
            Err(error) => Err(self.failed(error)),
        }
    }
}
