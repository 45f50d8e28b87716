//! The way through a transaction: its compares decide which operations are executed.
//!
//! All compares see the state before the transaction, those of transactions within it included. The
//! way is therefore known before anything is executed. Which lists were taken is recorded with the
//! outcome, so that the results of a transaction can be told again without its compares.

use dkv_base::id::{LeaseId, Revision, Stamp};
use dkv_wire::message::{Compare, Relation, Test, Transaction, TransactionOperation, Unfit};

use super::ShardState;
use super::budget::Budget;
use super::needed::{MissingValue, Needed, needs_values, value_bytes, value_of};
use crate::rows::Origin;

/// One step on the way through a transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PathStep<'a> {
    /// An operation, which is not a nested transaction.
    Operation(TransactionOperation<'a>),
    /// A nested transaction, whose steps follow.
    Nested {
        succeeded: bool,
        /// The number of its steps.
        steps: usize,
    },
}

/// The operations of a transaction that are executed, in order.
#[derive(Debug, Default)]
pub(crate) struct Path<'a> {
    pub(crate) steps: Vec<PathStep<'a>>,
    /// The operation of the outermost list that each step belongs to.
    pub(crate) of: Vec<u32>,
    /// Which nested transactions succeeded, from the lowest bit on.
    pub(crate) taken: u64,
    nested: u32,
}

impl<'a> Path<'a> {
    /// Returns the way through a list of operations. `choose` judges the compares of the nested
    /// transactions, in the order in which these are executed; it gets the place of the
    /// outermost operation that each belongs to, and its number.
    pub(crate) fn through<E>(
        operations: &[TransactionOperation<'a>],
        choose: &mut impl FnMut(u32, u32, &[Compare<'a>]) -> Result<bool, E>,
    ) -> Result<Self, E> {
        let mut path = Self { steps: Vec::with_capacity(operations.len()), ..Self::default() };
        for (index, operation) in operations.iter().enumerate() {
            path.add(operation, index as u32, choose)?;
        }
        Ok(path)
    }

    fn add<E>(
        &mut self,
        operation: &TransactionOperation<'a>,
        of: u32,
        choose: &mut impl FnMut(u32, u32, &[Compare<'a>]) -> Result<bool, E>,
    ) -> Result<(), E> {
        self.of.push(of);
        let TransactionOperation::Nested(body) = operation else {
            self.steps.push(PathStep::Operation(*operation));
            return Ok(());
        };
        let number = self.nested;
        self.nested += 1;
        // It was decoded when the whole was validated.
        let Transaction { compares, then, otherwise } =
            Transaction::decode(body).unwrap_or_default();
        let succeeded = choose(of, number, &compares)?;
        self.taken |= u64::from(succeeded) << number.min(63);
        let place = self.steps.len();
        self.steps.push(PathStep::Nested { succeeded, steps: 0 });
        for operation in if succeeded { &then } else { &otherwise } {
            self.add(operation, of, choose)?;
        }
        let steps = self.steps.len() - place - 1;
        self.steps[place] = PathStep::Nested { succeeded, steps };
        Ok(())
    }

    /// Returns the operations with their places.
    pub(crate) fn operations(&self) -> impl Iterator<Item = (usize, &TransactionOperation<'a>)> {
        self.steps.iter().enumerate().filter_map(|(place, step)| match step {
            PathStep::Operation(operation) => Some((place, operation)),
            PathStep::Nested { .. } => None,
        })
    }
}

impl ShardState {
    /// Returns the way through a list of operations in this state, or the operation whose compares
    /// need too much.
    pub(super) fn path<'a>(
        &self,
        operations: &[TransactionOperation<'a>],
        needed: &Needed,
        budget: &mut Budget,
    ) -> Result<Result<Path<'a>, (u32, Unfit)>, MissingValue> {
        let through = Path::through(operations, &mut |of, _, compares| match self
            .holds_all(compares, needed, budget)
        {
            Ok(Ok(holds)) => Ok(holds),
            Ok(Err(why)) => Err(Ok((of, why))),
            Err(missing) => Err(Err(missing)),
        });
        match through {
            Ok(path) => Ok(Ok(path)),
            Err(Ok(unfit)) => Ok(Err(unfit)),
            Err(Err(missing)) => Err(missing),
        }
    }

    /// Returns whether all compares hold, or why they cannot be judged.
    pub(super) fn holds_all(
        &self,
        compares: &[Compare<'_>],
        needed: &Needed,
        budget: &mut Budget,
    ) -> Result<Result<bool, Unfit>, MissingValue> {
        for compare in compares {
            match self.compare(compare, needed, budget)? {
                Ok(true) => {}
                fails => return Ok(fails),
            }
        }
        Ok(Ok(true))
    }

    fn compare(
        &self,
        compare: &Compare<'_>,
        needed: &Needed,
        budget: &mut Budget,
    ) -> Result<Result<bool, Unfit>, MissingValue> {
        let Compare { keys, test } = compare;
        if let Test::Exists(exists) = test {
            return Ok(Ok(self.slots(keys).next().is_some() == *exists));
        }
        let mut any = false;
        for (key, slot) in self.slots(keys) {
            any = true;
            let value = if needs_values(compare) { value_bytes(slot) } else { 0 };
            if let Err(why) = budget.take(key.len() + value) {
                return Ok(Err(why));
            }
            let lease = || self.attached(key).lease;
            let is_so = match (number_holds(test, slot.origin, lease), test) {
                (Some(is_so), _) => is_so,
                (None, Test::Value(relation, other)) => {
                    holds(&value_of(key, slot, needed)?[..], *relation, *other)
                }
                (None, _) => false,
            };
            if !is_so {
                return Ok(Ok(false));
            }
        }
        if any {
            return Ok(Ok(true));
        }
        let (revision, stamp) = (Revision(0), Stamp(0));
        let absent = Origin { revision, stamp, created: revision, version: 0, position: 0 };
        Ok(Ok(number_holds(test, absent, LeaseId::default).unwrap_or(false)))
    }
}

/// Returns whether a number of a key passes a test; `None` for a test of something else.
fn number_holds(test: &Test<'_>, origin: Origin, lease: impl FnOnce() -> LeaseId) -> Option<bool> {
    match *test {
        Test::Revision(relation, other) => Some(holds(origin.revision, relation, other)),
        Test::Created(relation, other) => Some(holds(origin.created, relation, other)),
        Test::Version(relation, other) => Some(holds(origin.version, relation, other)),
        Test::Lease(relation, other) => Some(holds(lease().0, relation, other)),
        Test::Exists(_) | Test::Value(..) => None,
    }
}

/// Returns whether a part of a key has this relation to another value.
fn holds<T: Ord>(part: T, relation: Relation, other: T) -> bool {
    match relation {
        Relation::Equal => part == other,
        Relation::NotEqual => part != other,
        Relation::Less => part < other,
        Relation::Greater => part > other,
    }
}
