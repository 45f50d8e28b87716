//! The compares of a transaction: conditions on keys and ranges.

use bytes::Bytes;
use dkv_base::id::Revision;
use dkv_wire::message::{self, KeyRange, Relation};

/// A condition on one key, or on all existing keys of a range.
///
/// A key that does not exist has zero for every number, and fails every test of its value. So does
/// a range in which no key exists.
///
/// # Examples
/// ```
/// use dkv_api::{Compare, KeyRange, Relation, Revision, Test};
///
/// let unchanged = Compare::revision("planet", Relation::Equal, Revision(17));
/// let none = Compare::of(KeyRange::Prefix("user/".into()), Test::Exists(false));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    keys: KeyRange,
    test: Test,
}

/// What a [`Compare`] tests.
///
/// # Examples
/// ```
/// use dkv_api::{Relation, Test};
///
/// let changed_often = Test::Version(Relation::Greater, 100);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// Whether the key exists; for a range, whether any key does.
    Exists(bool),
    /// The revision of the last write of the key.
    Revision(Relation, Revision),
    /// The revision of the write that created the key.
    Created(Relation, Revision),
    /// The number of writes of the key since it was created.
    Version(Relation, u64),
    /// The value, in the order of bytes.
    Value(Relation, Bytes),
    /// The lease of the key, by its number; zero for a key without one.
    Lease(Relation, u64),
}

impl Compare {
    /// Tests the keys of a range. More than one key needs a network with one shard.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Compare, KeyRange, Test};
    ///
    /// let no_users = Compare::of(KeyRange::Prefix("user/".into()), Test::Exists(false));
    /// ```
    pub fn of(keys: KeyRange, test: Test) -> Self {
        Self { keys, test }
    }

    /// Returns the keys that it is about.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Compare, KeyRange};
    ///
    /// assert_eq!(Compare::exists("color").keys(), &KeyRange::Key("color".into()));
    /// ```
    pub fn keys(&self) -> &KeyRange {
        &self.keys
    }

    /// Returns what it tests.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Compare, Test};
    ///
    /// assert_eq!(Compare::absent("color").test(), &Test::Exists(false));
    /// ```
    pub fn test(&self) -> &Test {
        &self.test
    }

    fn of_key(key: impl AsRef<[u8]>, test: Test) -> Self {
        Self { keys: KeyRange::Key(Bytes::copy_from_slice(key.as_ref())), test }
    }

    /// Holds if the key exists.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Compare, Transaction, TransactionOperation};
    ///
    /// let update = Transaction::new()
    ///     .when(Compare::exists("color"))
    ///     .then(TransactionOperation::put("color", "blue"));
    /// ```
    pub fn exists(key: impl AsRef<[u8]>) -> Self {
        Self::of_key(key, Test::Exists(true))
    }

    /// Holds if the key does not exist.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Compare, Transaction, TransactionOperation};
    ///
    /// let create = Transaction::new()
    ///     .when(Compare::absent("color"))
    ///     .then(TransactionOperation::put("color", "blue"));
    /// ```
    pub fn absent(key: impl AsRef<[u8]>) -> Self {
        Self::of_key(key, Test::Exists(false))
    }

    /// Compares the value of a key.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Compare, Relation};
    ///
    /// let is_red = Compare::value("color", Relation::Equal, "red");
    /// ```
    pub fn value(key: impl AsRef<[u8]>, relation: Relation, value: impl Into<Bytes>) -> Self {
        Self::of_key(key, Test::Value(relation, value.into()))
    }

    /// Compares the revision of the last write of a key.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Compare, Relation, Revision};
    ///
    /// // Holds if nobody has written the key since it was read at revision 17.
    /// let unchanged = Compare::revision("color", Relation::Equal, Revision(17));
    /// ```
    pub fn revision(key: impl AsRef<[u8]>, relation: Relation, revision: Revision) -> Self {
        Self::of_key(key, Test::Revision(relation, revision))
    }

    /// Compares the revision of the write that created a key.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Compare, Relation, Revision};
    ///
    /// // Fails if the key was deleted and created again after revision 17.
    /// let the_same = Compare::created("color", Relation::Equal, Revision(17));
    /// ```
    pub fn created(key: impl AsRef<[u8]>, relation: Relation, revision: Revision) -> Self {
        Self::of_key(key, Test::Created(relation, revision))
    }

    /// Compares the number of writes of a key since it was created.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Compare, Relation};
    ///
    /// let was_changed = Compare::version("color", Relation::Greater, 1);
    /// ```
    pub fn version(key: impl AsRef<[u8]>, relation: Relation, version: u64) -> Self {
        Self::of_key(key, Test::Version(relation, version))
    }
}

pub(super) fn keys_to_wire(keys: &KeyRange) -> message::Keys<'_> {
    match keys {
        KeyRange::Key(key) => message::Keys::Key(key),
        KeyRange::Prefix(prefix) => message::Keys::Prefix(prefix),
        KeyRange::Range(from, to) => message::Keys::Range(from, to),
    }
}

pub(super) fn compare_to_wire(compare: &Compare) -> message::Compare<'_> {
    let test = match &compare.test {
        Test::Exists(exists) => message::Test::Exists(*exists),
        Test::Revision(relation, revision) => message::Test::Revision(*relation, *revision),
        Test::Created(relation, revision) => message::Test::Created(*relation, *revision),
        Test::Version(relation, version) => message::Test::Version(*relation, *version),
        Test::Value(relation, value) => message::Test::Value(*relation, value),
        Test::Lease(relation, lease) => message::Test::Lease(*relation, *lease),
    };
    message::Compare { keys: keys_to_wire(&compare.keys), test }
}
