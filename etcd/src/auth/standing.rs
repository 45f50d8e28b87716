//! Rights of streams, which go on long after they were asked for: a stream ends once its caller may
//! no longer ask for it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use tokio::time::sleep;

use super::needs::Needs;
use crate::access::Rules;
use crate::context::Context;
use crate::error::{Code, EtcdError};
use crate::etcd::{Answers, Etcd};
use crate::limits::{RIGHTS_CHECK_EVERY, RIGHTS_FRESH};

/// The right to a stream.
pub(crate) struct StandingRight {
    needs: Needs,
    /// Who asked, and the revision since which that user had its password. A token may end while
    /// the stream goes on, as at etcd's server; what counts is the user.
    user: Option<(String, u64)>,
}

impl StandingRight {
    /// Returns the right of a caller that may ask now.
    pub(crate) fn new(etcd: &Etcd, rules: &Rules, context: &Context, needs: Needs) -> Self {
        // Copies of its own, or the keys would keep the whole request in memory.
        let own = |bytes: Bytes| Bytes::copy_from_slice(&bytes);
        let keys = needs.keys.into_iter().map(|(access, key, end)| (access, own(key), own(end)));
        let needs = Needs { keys: keys.collect(), ..needs };
        let user = etcd.user_of(rules, context).ok().flatten();
        let user = user.and_then(|user| rules.state.auth.since(&user).map(|since| (user, since)));
        Self { needs, user: user.filter(|_| rules.state.auth.enabled) }
    }

    /// Checks that it still holds.
    ///
    /// # Errors
    /// It does not.
    pub(crate) async fn check(
        &self,
        etcd: &Etcd,
        rules: &Rules,
        context: &Context,
    ) -> Result<(), EtcdError> {
        let state = &rules.state.auth;
        if !state.enabled {
            return Ok(());
        }
        match &self.user {
            Some((user, since)) if state.since(user) == Some(*since) => {
                etcd.check_user(rules, user, &self.needs).await
            }
            Some(_) => Err(EtcdError::PERMISSION_DENIED),
            // Authentication was off when the stream began.
            None => etcd.check_caller(rules, context, &self.needs).await,
        }
    }
}

impl Etcd {
    /// Passes on the answers of a stream until the right to it does not hold any more.
    pub(super) fn while_permitted<A: Send + 'static>(
        &self,
        context: Context,
        right: StandingRight,
        answers: Answers<A>,
    ) -> Answers<A> {
        let etcd = self.clone();
        let withdrawn = Box::pin(async move {
            let mut checked = None;
            loop {
                sleep(RIGHTS_CHECK_EVERY).await;
                let rules = match etcd.changed_rules(checked.as_ref()) {
                    Ok(Some(rules)) => rules,
                    Ok(None) => continue,
                    Err(why) => return why,
                };
                if let Err(why) = right.check(&etcd, &rules, &context).await {
                    return why;
                }
                checked = Some(rules);
            }
        });
        stream::unfold(Some((answers, withdrawn)), |going| async move {
            let (mut answers, mut withdrawn) = going?;
            tokio::select! {
                why = &mut withdrawn => Some((Err(why), None)),
                answer = answers.next() => Some((answer?, Some((answers, withdrawn)))),
            }
        })
        .boxed()
    }

    /// Returns the rules, as they were at most [`RIGHTS_FRESH`] and a look ago, if they differ from
    /// those that were `checked`. Waits for nothing.
    ///
    /// # Errors
    /// Authentication is on, and the rules could not be read again for so long that the right may
    /// have been withdrawn.
    pub(crate) fn changed_rules(
        &self,
        checked: Option<&Arc<Rules>>,
    ) -> Result<Option<Arc<Rules>>, EtcdError> {
        let Some(known) = self.shared().known() else { return Ok(None) };
        if known.asked.elapsed() >= RIGHTS_FRESH {
            self.refresh_rules();
        }
        if known.is_too_old(Instant::now()) {
            let why = "etcdserver: the users and roles cannot be read";
            return Err(EtcdError::new(Code::Unavailable, why));
        }
        let is_new = checked.is_none_or(|checked| !Arc::ptr_eq(checked, &known.rules));
        Ok(is_new.then_some(known.rules))
    }
}
