//! Groups of keys whose values are lists.

/// Keys whose values are lists, in one shard.
#[derive(Clone, Debug)]
pub(super) struct ListGroup {
    /// Prefix of all keys of the group.
    pub(super) prefix: String,
    /// The lists. The first one is counted.
    pub(super) lists: [String; 3],
    /// The counter of the first list.
    pub(super) counter: String,
}

/// Finds the keys of a group: all are in the shard of the first.
pub(super) fn group(number: u64, shard_of: impl Fn(&str) -> u32) -> ListGroup {
    let prefix = format!("l{number}-");
    let shard = shard_of(&format!("{prefix}0"));
    let mut keys =
        (0_u64..).map(|key| format!("{prefix}{key}")).filter(|key| shard_of(key) == shard);
    let mut next = || keys.next().unwrap_or_default();
    let lists = [next(), next(), next()];
    let counter = next();
    ListGroup { prefix, lists, counter }
}
