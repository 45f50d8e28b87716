//! Rights of streams, which go on long after they were asked for: a stream ends once its caller may
//! no longer ask for it.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use tokio::time::sleep;

use super::needs::Needs;
use crate::access::Rules;
use crate::context::Context;
use crate::error::EtcdError;
use crate::etcd::{Answers, Etcd};
use crate::limits::RIGHTS_CHECK_EVERY;

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
                if let Some(rules) = etcd.rules_unlike(checked.as_ref()).await {
                    if let Err(why) = right.check(&etcd, &rules, &context).await {
                        return why;
                    }
                    checked = Some(rules);
                }
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

    /// Returns the rules if they differ from those that were `checked`. While they cannot be read,
    /// nothing is known to be withdrawn.
    pub(crate) async fn rules_unlike(&self, checked: Option<&Arc<Rules>>) -> Option<Arc<Rules>> {
        let rules = self.rules().await.ok()?;
        checked.is_none_or(|checked| !Arc::ptr_eq(checked, &rules)).then_some(rules)
    }
}
