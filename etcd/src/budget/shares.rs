//! Shares of what all callers of a face have together: a caller takes from that of its address, and
//! within it from its own.
//!
//! Who has more than a multiple of what is left gets no more of it. So something is left for an
//! address that has less, and within an address for a caller that has less, and one that is alone
//! may have most of it. (That is the rule of dynamic thresholds for buffers of switches, by
//! Choudhury and Hahne, 1998.) Each that takes all it may leaves only a fraction to the next, which
//! for watches and logins soon is less than one. Bytes never run out for any connection: each has a
//! few that no other can take.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use dkv_base::slots::group;
use dkv_base::sync::lock;

use crate::error::EtcdError;
use crate::limits::{
    ANSWERS_BYTES_MAX, CONNECTION_RESERVE_BYTES, HASHES_WAITING_MAX, REQUESTS_BYTES_MAX,
    WATCHES_MAX,
};

/// A resource that callers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    /// Bytes of messages that are not handled yet.
    Message,
    /// Bytes of answers that are not sent yet.
    Answer,
    /// Watches.
    Watch,
    /// Passwords that are checked, or wait for that.
    Login,
}

/// The number of [`Resource`]s.
const KINDS: usize = 4;

/// How much is in use.
#[derive(Debug, Default)]
struct Used([AtomicUsize; KINDS]);

impl Used {
    fn add(&self, kind: Resource, number: usize) -> usize {
        self.0[kind as usize].fetch_add(number, Ordering::Relaxed).saturating_add(number)
    }

    fn sub(&self, kind: Resource, number: usize) {
        self.0[kind as usize].fetch_sub(number, Ordering::Relaxed);
    }
}

/// What all callers may have together. Clones share it.
#[derive(Clone)]
pub(crate) struct Budget {
    inner: Arc<Inner>,
}

/// A user at an address; `None` is everybody who is no user.
type User = (IpAddr, Option<String>);

struct Inner {
    most: [usize; KINDS],
    /// What each connection has for itself, in bytes of messages, and of answers.
    reserve: usize,
    used: Used,
    addresses: Mutex<HashMap<IpAddr, Weak<Used>>>,
    users: Mutex<HashMap<User, Weak<Used>>>,
}

impl Default for Budget {
    fn default() -> Self {
        let most = [REQUESTS_BYTES_MAX, ANSWERS_BYTES_MAX, WATCHES_MAX, HASHES_WAITING_MAX];
        Self::new(most, CONNECTION_RESERVE_BYTES)
    }
}

/// An address may have this many times as much as is left. One answer may take half of all, and all
/// programs of a machine log in at once after it has started, so there it is more.
const fn times(kind: Resource) -> usize {
    match kind {
        Resource::Message => 1,
        Resource::Answer | Resource::Watch | Resource::Login => 3,
    }
}

impl Budget {
    /// Creates a budget of so much of each [`Resource`], and so many bytes for each connection
    /// beside.
    pub(crate) fn new(most: [usize; KINDS], reserve: usize) -> Self {
        let (used, addresses, users) = (Used::default(), Mutex::default(), Mutex::default());
        Self { inner: Arc::new(Inner { most, reserve, used, addresses, users }) }
    }

    /// Returns the shares of a new connection from an address, whose callers are nobody in
    /// particular.
    pub(crate) fn connection(&self, address: IpAddr) -> Shares {
        let of_address = shared(&self.inner.addresses, group(address));
        let (own, of_connection) = Default::default();
        Shares { budget: Arc::clone(&self.inner), address, of_address, own, of_connection }
    }

    /// Returns the shares of a user on a connection; those of all who are no users are one.
    pub(crate) fn user(&self, connection: &Shares, user: Option<&str>) -> Shares {
        let of = (group(connection.address), user.map(str::to_owned));
        Shares { own: shared(&self.inner.users, of), ..connection.clone() }
    }
}

/// Returns what the owner of a key uses, which is remembered for as long as it has anything.
fn shared<K: Eq + std::hash::Hash>(all: &Mutex<HashMap<K, Weak<Used>>>, key: K) -> Arc<Used> {
    let mut all = lock(all);
    let known = all.get(&key).and_then(Weak::upgrade);
    known.unwrap_or_else(|| {
        if all.len() == all.capacity() {
            all.retain(|_, used| used.strong_count() > 0);
        }
        let used = Arc::<Used>::default();
        all.insert(key, Arc::downgrade(&used));
        used
    })
}

/// What a caller uses, and may.
#[derive(Clone)]
pub(crate) struct Shares {
    budget: Arc<Inner>,
    address: IpAddr,
    of_address: Arc<Used>,
    own: Arc<Used>,
    /// What the connection uses: of its reserve, and of places to log in.
    of_connection: Arc<Used>,
}

impl Shares {
    /// Returns the address of the caller.
    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    /// Takes some, until the returned value is dropped.
    ///
    /// # Errors
    /// The caller, its address or all callers have too many.
    pub(crate) fn take(
        self: &Arc<Self>,
        kind: Resource,
        number: usize,
    ) -> Result<Taken, EtcdError> {
        let mut taken = Taken::none(self, kind);
        taken.more(number)?;
        Ok(taken)
    }

    /// Returns what counts as the caller's own. Who logs in is no user yet, and all who are none
    /// share the rest.
    fn own(&self, kind: Resource) -> &Arc<Used> {
        match kind {
            Resource::Login => &self.of_connection,
            Resource::Message | Resource::Answer | Resource::Watch => &self.own,
        }
    }

    fn take_reserve(&self, kind: Resource, number: usize) -> bool {
        let most = self.budget.reserve;
        if matches!(kind, Resource::Watch | Resource::Login) || number > most {
            return false;
        }
        let fits = self.of_connection.add(kind, number) <= most;
        if !fits {
            self.of_connection.sub(kind, number);
        }
        fits
    }

    fn take_shared(&self, kind: Resource, number: usize) -> bool {
        let Inner { most, used, .. } = &*self.budget;
        let all = used.add(kind, number);
        let of_address = self.of_address.add(kind, number);
        let own = self.own(kind).add(kind, number);
        let left = most[kind as usize].checked_sub(all);
        let left = left.and_then(|left| (left * times(kind)).checked_sub(of_address));
        let fits = left.is_some_and(|left| own <= left);
        if !fits {
            self.give_back(kind, number);
        }
        fits
    }

    fn give_back(&self, kind: Resource, number: usize) {
        for used in [self.own(kind), &self.of_address, &self.budget.used] {
            used.sub(kind, number);
        }
    }
}

/// What a caller has taken, until this is dropped.
pub(crate) struct Taken {
    shares: Arc<Shares>,
    kind: Resource,
    /// Taken from the reserve of the connection.
    reserved: usize,
    shared: usize,
}

impl Taken {
    /// Returns one that has nothing yet.
    pub(crate) fn none(shares: &Arc<Shares>, kind: Resource) -> Self {
        Self { shares: Arc::clone(shares), kind, reserved: 0, shared: 0 }
    }

    /// Returns how much it is.
    pub(crate) fn number(&self) -> usize {
        self.reserved + self.shared
    }

    /// Takes more.
    ///
    /// # Errors
    /// As for [`Shares::take`]. It has what it had then.
    pub(crate) fn more(&mut self, number: usize) -> Result<(), EtcdError> {
        if number == 0 {
            return Ok(());
        }
        if self.shares.take_reserve(self.kind, number) {
            self.reserved += number;
            return Ok(());
        }
        if self.shares.take_shared(self.kind, number) {
            self.shared += number;
            return Ok(());
        }
        Err(EtcdError::REQUEST_TOO_MANY_REQUESTS)
    }

    /// Gives all of it back.
    pub(crate) fn clear(&mut self) {
        if self.reserved > 0 {
            self.shares.of_connection.sub(self.kind, std::mem::take(&mut self.reserved));
        }
        if self.shared > 0 {
            self.shares.give_back(self.kind, std::mem::take(&mut self.shared));
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.clear();
    }
}
