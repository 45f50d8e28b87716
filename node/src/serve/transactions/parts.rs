//! A transaction over several shards, divided into the parts of the shards.

use std::collections::BTreeMap;

use bytes::Bytes;
use dkv_base::id::{GroupId, Revision, Stamp};
use dkv_wire::codec;
use dkv_wire::message::{
    OperationResult, Prospect, Refusal, TransactOver, Transaction, TransactionOperation, Unfit,
};

/// The part of one shard.
pub(super) struct Part {
    /// Its compares and operations, as an encoded transaction.
    pub(super) body: Bytes,
    /// The places of its operations in the two lists of the whole transaction.
    places: [Vec<usize>; 2],
}

/// The parts of a transaction, by shard.
pub(super) struct DividedTransaction {
    by_shard: BTreeMap<GroupId, Part>,
    /// Lengths of the two lists of operations.
    lengths: [usize; 2],
}

/// What a shard has answered about its part.
pub(super) struct PreparedPart {
    pub(super) holds: bool,
    pub(super) revision: Revision,
    pub(super) stamp: Stamp,
    /// What the part would do if all compares hold, and if one does not.
    pub(super) prospects: [Prospect; 2],
}

impl DividedTransaction {
    /// Divides a transaction that was validated.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] if it is none, or if its home has no part in it.
    pub(super) fn of(over: &TransactOver<'_>, home: GroupId) -> Result<Self, Refusal> {
        let invalid = |why: &str| Refusal::Invalid(why.into());
        let transaction: Transaction<'_> =
            codec::decode(over.body).map_err(|error| Refusal::Invalid(error.to_string()))?;
        let Transaction { compares, then, otherwise } = transaction;
        let lengths = [then.len(), otherwise.len()];
        let mut shards = over.shards.iter().copied();
        let mut divided: BTreeMap<GroupId, (Transaction<'_>, [Vec<usize>; 2])> = BTreeMap::new();
        let mut next = || shards.next().ok_or_else(|| invalid("a key has no shard"));
        for compare in compares {
            divided.entry(next()?).or_default().0.compares.push(compare);
        }
        for (list, operations) in [then, otherwise].into_iter().enumerate() {
            for (place, operation) in operations.into_iter().enumerate() {
                let (part, places) = divided.entry(next()?).or_default();
                add(part, list, operation);
                if let Some(places) = places.get_mut(list) {
                    places.push(place);
                }
            }
        }
        if !divided.contains_key(&home) {
            return Err(invalid("a transaction goes to the shard of one of its keys"));
        }
        let part = |(shard, (part, places))| (shard, Part { body: codec::encode(&part), places });
        Ok(Self { by_shard: divided.into_iter().map(part).collect(), lengths })
    }

    /// Returns the parts in the order of shards.
    pub(super) fn iter(&self) -> impl Iterator<Item = (GroupId, &Part)> {
        self.by_shard.iter().map(|(shard, part)| (*shard, part))
    }

    /// Returns the shards other than the home.
    pub(super) fn participants(&self, home: GroupId) -> Vec<GroupId> {
        self.by_shard.keys().copied().filter(|shard| *shard != home).collect()
    }

    /// Returns the first operation of the whole transaction that cannot be executed, if one of this
    /// list cannot.
    pub(super) fn unfit(
        &self,
        prepared: &BTreeMap<GroupId, PreparedPart>,
        succeeded: bool,
    ) -> Option<(u32, Unfit)> {
        let list = usize::from(!succeeded);
        let of_part = |(shard, part): (&GroupId, &Part)| {
            let (operation, why) = prepared.get(shard)?.prospects.get(list)?.unfit?;
            // For compares that need too much, the shard names operation 0, though a part with
            // compares may have no operations.
            let place = part.places.get(list)?.get(operation as usize).copied().unwrap_or(0);
            Some((u32::try_from(place).ok()?, why))
        };
        self.by_shard.iter().filter_map(of_part).min_by_key(|(operation, _)| *operation)
    }

    /// Returns the results of one list of the whole transaction, in order. Those of the home get
    /// the revision at which it was executed there. `None` if a shard did not tell them.
    pub(super) fn results(
        &self,
        prepared: BTreeMap<GroupId, PreparedPart>,
        succeeded: bool,
        (home, revision): (GroupId, Revision),
    ) -> Option<Vec<OperationResult>> {
        let list = usize::from(!succeeded);
        let mut results: Vec<Option<OperationResult>> = vec![None; *self.lengths.get(list)?];
        for (shard, PreparedPart { prospects, .. }) in prepared {
            let [then, otherwise] = prospects;
            let of_part = if succeeded { then.results? } else { otherwise.results? };
            let places = self.by_shard.get(&shard)?.places.get(list)?;
            if places.len() != of_part.len() {
                return None;
            }
            for (place, mut result) in places.iter().zip(of_part) {
                if shard == home {
                    executed_at(&mut result, revision);
                }
                *results.get_mut(*place)? = Some(result);
            }
        }
        results.into_iter().collect()
    }
}

fn add<'a>(part: &mut Transaction<'a>, list: usize, operation: TransactionOperation<'a>) {
    match list {
        0 => part.then.push(operation),
        _ => part.otherwise.push(operation),
    }
}

/// Completes a result with the revision at which its operation was executed.
fn executed_at(result: &mut OperationResult, at: Revision) {
    let complete = |revision: &mut Revision| {
        if *revision == Revision(0) {
            *revision = at;
        }
    };
    match result {
        OperationResult::Put { created, .. } => complete(created),
        OperationResult::Changed(version) | OperationResult::Got(Some(version)) => {
            complete(&mut version.created);
            complete(&mut version.revision);
        }
        OperationResult::Listed { keys, .. } => {
            for (_, version) in keys {
                complete(&mut version.created);
                complete(&mut version.revision);
            }
        }
        OperationResult::Got(None)
        | OperationResult::Deleted(_)
        // A part has none of these.
        | OperationResult::Replaced { .. }
        | OperationResult::Removed { .. }
        | OperationResult::Ranged { .. }
        | OperationResult::Nested { .. } => {}
    }
}

#[cfg(test)]
mod tests;
