//! Sums of keys, in any order: two sides that have the same keys have the same sum.

use std::fmt;

use xxhash_rust::xxh3::Xxh3;

/// The number of some keys, and a hash of them, their values and their leases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    keys: u64,
    hash: u128,
}

impl Sum {
    /// Adds a key that was not added before.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8], lease: i64) {
        let mut hash = Xxh3::new();
        for bytes in [key, value] {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        hash.update(&lease.to_le_bytes());
        self.keys += 1;
        self.hash = self.hash.wrapping_add(hash.digest128());
    }

    /// Returns the number of keys.
    pub(super) fn keys(&self) -> u64 {
        self.keys
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_order_does_not_matter() {
        let of = |keys: &[(&str, &str, i64)]| {
            let mut sum = Sum::default();
            keys.iter().for_each(|(key, value, lease)| {
                sum.add(key.as_bytes(), value.as_bytes(), *lease);
            });
            sum
        };
        let one = of(&[("a", "1", 0), ("b", "2", 7)]);
        assert_eq!(one, of(&[("b", "2", 7), ("a", "1", 0)]));
        for other in [
            &[("a", "1", 0)][..],
            &[("a", "1", 0), ("b", "2", 0)],
            &[("a", "2", 0), ("b", "1", 7)],
            &[("a", "1", 0), ("b2", "", 7)],
        ] {
            assert_ne!(one, of(other));
        }
    }
}
