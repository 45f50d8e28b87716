//! A bounded, repeatable run of a target.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::change::changed;
use crate::random::Random;
use crate::targets::Target;

/// How much was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Number of inputs.
    pub inputs: u64,
    /// Total length of the inputs, in bytes.
    pub bytes: u64,
}

/// Runs a target on its seeds and on `inputs` mutations of them, which derive from `seed`.
///
/// # Panics
/// If the target does, after printing the input in hexadecimal digits.
pub fn attempt(target: &Target, inputs: u64, seed: u64) -> Tried {
    let seeds = (target.seeds)();
    let mut random = Random::new(seed);
    let mut tried = Tried { inputs: 0, bytes: 0 };
    let mut one = |input: &[u8]| {
        tried.inputs += 1;
        tried.bytes += input.len() as u64;
        if let Err(panicked) = catch_unwind(AssertUnwindSafe(|| (target.read)(input))) {
            let digits = data_encoding::HEXLOWER.encode(input);
            println!("{}: this input broke it: {digits}", target.name);
            std::panic::resume_unwind(panicked);
        }
    };
    for input in &seeds {
        one(input);
    }
    for _ in 0..inputs {
        one(&changed(&seeds, &mut random));
    }
    tried
}
