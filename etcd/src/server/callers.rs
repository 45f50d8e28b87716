//! The callers on a connection, and the shares that they take from.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use dkv_base::sync::lock;
use hyper::HeaderMap;

use crate::auth::{Asker, token};
use crate::budget::{Budget, Shares};
use crate::limits::SHARED_FRESH;

/// The callers on one connection. Most connections have one.
pub(super) struct Callers {
    budget: Budget,
    /// Those of callers while there are no users.
    anybody: Arc<Shares>,
    /// The last caller.
    last: Mutex<Option<Last>>,
}

struct Last {
    token: Option<String>,
    /// When it was found out who has the token.
    asked: Instant,
    shares: Arc<Shares>,
}

impl Callers {
    /// Begins with none.
    pub(super) fn new(budget: &Budget, address: IpAddr) -> Self {
        let anybody = Arc::new(budget.connection(address));
        Self { budget: budget.clone(), anybody, last: Mutex::default() }
    }

    /// Returns the shares of the caller of a request. `asker` finds out who has a token.
    pub(super) fn shares(
        &self,
        headers: &HeaderMap,
        asker: impl FnOnce(Option<&str>) -> Asker,
    ) -> Arc<Shares> {
        let (token, now) = (token(headers), Instant::now());
        let mut last = lock(&self.last);
        if let Some(last) = &*last
            && last.token.as_deref() == token
            && now < last.asked + SHARED_FRESH
        {
            return Arc::clone(&last.shares);
        }
        let user = |user: Option<&str>| Arc::new(self.budget.user(&self.anybody, user));
        let shares = match asker(token) {
            Asker::Anybody => Arc::clone(&self.anybody),
            Asker::User(name) => user(Some(&name)),
            Asker::Nobody => user(None),
        };
        let token = token.map(str::to_owned);
        *last = Some(Last { token, asked: now, shares: Arc::clone(&shares) });
        shares
    }
}
