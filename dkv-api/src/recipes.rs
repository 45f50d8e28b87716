//! Locks, elections, registrations, queues and rate counters, made of leases, transactions and
//! watches.
//!
//! | recipe | what it is |
//! |---|---|
//! | [`Lock`] | one holder at a time, in the order of arrival |
//! | [`Leadership`], [`leader`], [`Elections`] | one leader at a time, whom everybody can find |
//! | [`Registration`], [`instances`] | the live instances of a service |
//! | [`Queue`] | items that are each done once, by one worker at a time |
//! | [`RateCounter`] | events in a window of time |
//!
//! # What none of them can promise
//!
//! A process can be paused at any moment: by its scheduler, its virtual machine, its garbage
//! collector. While it is paused its lease ends, another process gets the lock, and the paused one
//! goes on as if nothing had happened, for a moment at least. No lock over a network can prevent
//! that, whatever it is made of. What it can do is make the late one harmless: by *fencing*.
//!
//! Each holder has a number that is greater than that of every holder before it: its
//! [`fence`](Lock::fence). Whatever the holder changes must refuse a number that is lower than the
//! highest it has seen. For keys of this network [`Lock::condition`] does it: a transaction with
//! this condition is executed only while the holder has its place.
//!
//! # What they do promise
//!
//! - A holder that can ask whether it [is lost](Lock::is_lost) learns it before another one begins,
//!   as long as its clock runs as fast as those of the nodes: its time counts from the moment at
//!   which it asked, that of the nodes from a later one.
//! - The death of a node, of the coordinator or of a holder ends nothing early. A holder that dies
//!   is followed after its time to live; one that ends in good order, at once.
//! - Contenders are served in the order in which the shard of the recipe executed their first
//!   write. Each waits for the one before it and for nobody else, so that the end of one wakes one.
//!
//! All keys of a recipe that need an order are in one shard, in networks of any number of shards.

mod election;
mod line;
mod lock;
mod shard_keys;
mod queue;
mod rate;
mod registration;

pub use self::election::{Elections, Leader, Leadership, leader};
pub use self::lock::{Lock, LockOptions};
pub use self::queue::{Queue, QueueItem};
pub use self::rate::RateCounter;
pub use self::registration::{Instance, Registration, instances};
