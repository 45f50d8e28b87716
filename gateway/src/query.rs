//! What the query of a read asks for.

use std::time::Duration;

use dkv_api::{Level, Receipt, Revision};

/// How to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadQuery {
    /// `consistency`: what the answer must guarantee.
    pub level: Level,
    /// `max_staleness`: how old an eventual answer may be, in milliseconds.
    pub max_staleness: Option<Duration>,
    /// `at_least`: the revision that an eventual answer must have reached.
    pub at_least: Option<Revision>,
}

impl Default for ReadQuery {
    fn default() -> Self {
        Self { level: Level::Strong, max_staleness: None, at_least: None }
    }
}

impl ReadQuery {
    /// Reads the query of a target.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn parse(query: Option<&str>) -> Result<Self, String> {
        let mut parsed = Self::default();
        let mut seen = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number = || {
                let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                let number = value.parse::<u64>().ok().filter(|_| digits);
                number.ok_or_else(|| format!("{name} must be a whole number"))
            };
            match name {
                "consistency" => {
                    parsed.level = match value {
                        "strong" => Level::Strong,
                        "eventual" => Level::Eventual,
                        _ => return Err("consistency must be strong or eventual".into()),
                    }
                }
                "max_staleness" => parsed.max_staleness = Some(Duration::from_millis(number()?)),
                "at_least" => parsed.at_least = Some(Revision(number()?)),
                _ => {
                    let known = "consistency, max_staleness and at_least";
                    return Err(format!("the query may have {known} only"));
                }
            }
            if seen.contains(&name) {
                return Err(format!("{name} is there twice"));
            }
            seen.push(name);
        }
        Ok(parsed)
    }

    /// Whether an eventual answer is good enough; otherwise a strong one has to be asked for.
    pub fn is_content_with(&self, receipt: &Receipt) -> bool {
        let fresh = self.max_staleness.is_none_or(|limit| {
            receipt.staleness_ms.is_some_and(|age| Duration::from_millis(age) <= limit)
        });
        fresh && self.at_least.is_none_or(|least| receipt.revision >= least)
    }
}

/// That a query is empty, for what takes none.
///
/// # Errors
/// That it is not.
pub fn expect_none(query: Option<&str>) -> Result<(), String> {
    match query {
        None | Some("") => Ok(()),
        Some(_) => Err("this request takes no query".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let parse = |query| ReadQuery::parse(Some(query));
        assert_eq!(ReadQuery::parse(None), Ok(ReadQuery::default()));
        assert_eq!(parse(""), Ok(ReadQuery::default()));
        assert_eq!(parse("consistency=strong"), Ok(ReadQuery::default()));
        let all = parse("consistency=eventual&max_staleness=20&at_least=7").unwrap();
        assert_eq!((all.level, all.at_least), (Level::Eventual, Some(Revision(7))));
        assert_eq!(all.max_staleness, Some(Duration::from_millis(20)));
        for wrong in [
            "consistency",
            "consistency=STRONG",
            "max_staleness=-1",
            "max_staleness=+1",
            "at_least=",
            "at_least=18446744073709551616",
            "other=1",
            "consistency=strong&consistency=strong",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
