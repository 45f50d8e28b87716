//! A bounded, repeatable run of a target.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::change::changed;
use crate::random::Random;
use crate::targets::Target;

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Inputs.
    pub inputs: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// Hands a target its seeds and `inputs` inputs that are made from them; which ones follows from
/// `seed`.
///
/// # Panics
/// As the target does, after the input was printed in hexadecimal digits.
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
