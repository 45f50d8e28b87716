//! Zipfian numbers: a few come very often, most hardly ever.
//!
//! The generator is that of YCSB, which is "Algorithm ZIPF" of Gray, Sundaresan, Englert, Baclawski
//! and Weinberger, *Quickly generating billion-record synthetic databases*, SIGMOD 1994.

/// Skew of YCSB: the exponent of the distribution.
const THETA: f64 = 0.99;

/// Draws ranks below a bound; rank 0 is the most frequent.
#[derive(Clone, Debug)]
pub(crate) struct Zipfian {
    items: u64,
    zeta: f64,
    alpha: f64,
    eta: f64,
    half_to_theta: f64,
}

impl Zipfian {
    /// Ranks below `items`, of which there is at least one. Takes time proportional to `items`.
    pub(crate) fn new(items: u64) -> Self {
        let items = items.max(1);
        let zeta = zeta(items);
        let ratio = (2.0 / items as f64).powf(1.0 - THETA);
        let eta = (1.0 - ratio) / (1.0 - zeta_of_two() / zeta);
        let half_to_theta = 0.5_f64.powf(THETA);
        Self { items, zeta, alpha: 1.0 / (1.0 - THETA), eta, half_to_theta }
    }

    /// The rank that a number drawn evenly from `0.0..1.0` stands for.
    pub(crate) fn rank(&self, uniform: f64) -> u64 {
        let scaled = uniform * self.zeta;
        let rank = if scaled < 1.0 {
            0
        } else if scaled < 1.0 + self.half_to_theta {
            1
        } else {
            let share = self.eta * uniform - self.eta + 1.0;
            (self.items as f64 * share.powf(self.alpha)) as u64
        };
        rank.min(self.items - 1)
    }

    /// The same frequencies, but with the frequent items spread over all of them.
    pub(crate) fn scattered(&self, uniform: f64) -> u64 {
        fnv(self.rank(uniform)) % self.items
    }
}

/// Sum of the weights of all ranks.
fn zeta(items: u64) -> f64 {
    (1..=items).map(|rank| (rank as f64).powf(-THETA)).sum()
}

fn zeta_of_two() -> f64 {
    1.0 + 0.5_f64.powf(THETA)
}

/// FNV-1a over the eight bytes, as YCSB scatters.
fn fnv(number: u64) -> u64 {
    number.to_le_bytes().iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn draw(items: u64, draws: usize) -> Vec<f64> {
        let zipfian = Zipfian::new(items);
        let mut random = SmallRng::seed_from_u64(7);
        let mut shares = vec![0.0; items as usize];
        for _ in 0..draws {
            shares[zipfian.rank(random.random()) as usize] += 1.0 / draws as f64;
        }
        shares
    }

    #[test]
    fn the_most_frequent_ranks_have_their_exact_share() {
        let shares = draw(1000, 400_000);
        for rank in [0, 1] {
            let exact = (rank as f64 + 1.0).powf(-THETA) / zeta(1000);
            assert!((shares[rank] / exact - 1.0).abs() < 0.03, "{rank}: {} {exact}", shares[rank]);
        }
    }

    #[test]
    fn the_first_tenth_has_the_share_that_the_distribution_gives_it() {
        let shares = draw(1000, 400_000);
        let exact = zeta(100) / zeta(1000);
        let drawn: f64 = shares[..100].iter().sum();
        // The algorithm approximates all ranks but the first two.
        assert!((drawn / exact - 1.0).abs() < 0.05, "{drawn} {exact}");
    }

    #[test]
    fn every_rank_is_below_the_bound() {
        for items in [1, 2, 3, 1000] {
            let zipfian = Zipfian::new(items);
            for uniform in [0.0, 0.3, 0.5, 0.999_999, 1.0_f64.next_down()] {
                assert!(zipfian.rank(uniform) < items, "{items} {uniform}");
                assert!(zipfian.scattered(uniform) < items);
            }
        }
    }

    #[test]
    fn scattering_keeps_the_frequencies_and_moves_the_items() {
        let zipfian = Zipfian::new(1000);
        assert_ne!(zipfian.scattered(0.0), 0);
        assert_eq!(zipfian.scattered(0.0), zipfian.scattered(0.01));
    }
}
