//! Groups of keys whose values are lists.

/// Keys whose values are lists.
#[derive(Clone, Debug)]
pub(super) struct ListGroup {
    /// Prefix of all keys of the group.
    pub(super) prefix: String,
    /// The lists. The first one is counted.
    pub(super) lists: [String; 3],
    /// The counter of the first list.
    pub(super) counter: String,
}

/// Finds the keys of a group. With `spread` each is in the shard that follows that of the one
/// before, otherwise all are in one shard.
pub(super) fn group(
    number: u64,
    (shards, spread): (u32, bool),
    shard_of: impl Fn(&str) -> u32,
) -> ListGroup {
    let prefix = format!("l{number}-");
    let mut shard = shard_of(&format!("{prefix}0"));
    let mut keys = (0_u64..).map(|key| format!("{prefix}{key}"));
    let mut next = || {
        let key = keys.find(|key| shard_of(key) == shard).unwrap_or_default();
        if spread {
            shard = shard % shards + 1;
        }
        key
    };
    let lists = [next(), next(), next()];
    let counter = next();
    ListGroup { prefix, lists, counter }
}
