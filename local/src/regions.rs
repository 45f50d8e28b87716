//! The regions of a local network: which node is in which, and how far apart they are.

use dkv_api::Region;
use dkv_wire::network::Delays;

use crate::error::DelaysError;

/// One-way delays in milliseconds: between the first two regions, and between any other two.
const NEAR_MS: u32 = 200;
const FAR_MS: u32 = 600;

/// Returns the delays that `--regions`, `--delays` and `--delays-vary` ask for.
///
/// # Errors
/// A mistake in the matrix, or regions are missing.
pub fn delays(regions: &[Region], matrix: Option<&str>, vary: bool) -> Result<Delays, DelaysError> {
    if regions.is_empty() {
        return match matrix {
            Some(_) => Err(DelaysError::NeedsRegions("--delays")),
            None if vary => Err(DelaysError::NeedsRegions("--delays-vary")),
            None => Ok(Delays::default()),
        };
    }
    let average_ms = match matrix {
        Some(text) => parse(text)?,
        None => default_ms(regions.len()),
    };
    Ok(Delays { between: regions.iter().map(ToString::to_string).collect(), average_ms, vary })
}

/// Parses a matrix such as `0,200/180,0`: a row for each region, with a number for each.
fn parse(text: &str) -> Result<Vec<Vec<u32>>, DelaysError> {
    let number =
        |text: &str| text.trim().parse().map_err(|_| DelaysError::NotANumber(text.to_owned()));
    text.split('/').map(|row| row.split(',').map(number).collect()).collect()
}

fn default_ms(count: usize) -> Vec<Vec<u32>> {
    let between = |from: usize, to: usize| match (from.min(to), from.max(to)) {
        (from, to) if from == to => 0,
        (0, 1) => NEAR_MS,
        _ => FAR_MS,
    };
    (0..count).map(|from| (0..count).map(|to| between(from, to)).collect()).collect()
}

/// Returns the region of the node of that number, counted from one: nodes take turns.
pub fn region_of(regions: &[Region], number: u16) -> Option<&Region> {
    let index = usize::from(number).checked_sub(1)?;
    regions.get(index % regions.len().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regions(names: &[&str]) -> Vec<Region> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn three_regions_have_default_delays() {
        let names = regions(&["us-east", "us-west", "singapore"]);
        let delays = delays(&names, None, false).unwrap();
        assert_eq!(delays.between, ["us-east", "us-west", "singapore"]);
        assert_eq!(delays.average_ms, [[0, 200, 600], [200, 0, 600], [600, 600, 0]]);
        let of: Vec<_> =
            (1..=4).map(|number| region_of(&names, number).unwrap().as_str()).collect();
        assert_eq!(of, ["us-east", "us-west", "singapore", "us-east"]);
        assert_eq!(region_of(&[], 1), None);
    }

    #[test]
    fn a_matrix_sets_other_delays() {
        let names = regions(&["a", "b"]);
        let own = delays(&names, Some("0, 30/40,0"), true).unwrap();
        assert_eq!((own.average_ms, own.vary), (vec![vec![0, 30], vec![40, 0]], true));
        let said = delays(&names, Some("0,x/1,0"), false).unwrap_err().to_string();
        assert!(said.starts_with("--delays: \"x\" is not a number of milliseconds"), "{said}");
        assert_eq!(delays(&[], Some("0"), false), Err(DelaysError::NeedsRegions("--delays")));
        assert_eq!(delays(&[], None, false), Ok(Delays::default()));
    }
}
