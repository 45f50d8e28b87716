//! Transactions: their answers, and those over several shards.
//!
//! The log decides what a transaction of one shard does; the results of its operations are read
//! from the history once it is applied, in the same way for its first execution and for every
//! repetition. The primary of the home drives a transaction over several shards ([`driver`]), and
//! every primary ends what others have left in doubt ([`resolver`]).

mod answers;
mod driver;
mod parts;
mod proposals;

pub(crate) mod resolver;

pub(super) use answers::{with_foreseen, with_results};
pub(super) use driver::drive;
