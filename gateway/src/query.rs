//! What the query of a read asks for.

use std::time::Duration;

use dkv_api::{Level, ReadOptions, Revision};

use crate::bytes_json::Shown;
use crate::limits::{LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX, QUERY_BYTES_MAX};
use crate::percent;

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
        for field in fields(query) {
            let (name, value) = field?;
            match name {
                "consistency" => parsed.level = level_of_key(value)?,
                "max_staleness" => {
                    parsed.max_staleness = Some(Duration::from_millis(number(name, value)?));
                }
                "at_least" => parsed.at_least = Some(Revision(number(name, value)?)),
                _ => {
                    let known = "consistency, max_staleness and at_least";
                    return Err(format!("the query may have {known} only"));
                }
            }
        }
        Ok(parsed)
    }

    /// The same for the library. Bounds of a strong read are kept by every answer to it.
    pub fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::from(self.level);
        if self.level == Level::Eventual {
            options.max_staleness = self.max_staleness;
            options.at_least = self.at_least;
        }
        options
    }
}

/// `consistency` of a write: what its answer must guarantee.
///
/// # Errors
/// What is wrong with the query, in one line.
pub fn level_of_write(query: Option<&str>) -> Result<Level, String> {
    let mut asked = Level::Strong;
    for field in fields(query) {
        match field? {
            ("consistency", value) => asked = level_of_key(value)?,
            _ => return Err("the query of a write may have consistency only".into()),
        }
    }
    Ok(asked)
}

/// Which keys to list, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListQuery {
    /// `prefix`: keys that begin with this.
    pub prefix: Vec<u8>,
    /// `after`: keys that come after this one.
    pub after: Vec<u8>,
    /// `limit`: so many at most.
    pub limit: usize,
    /// `values`: whether values are shown.
    pub values: bool,
    /// `consistency`: what the answer must guarantee.
    pub level: Level,
    /// `encoding`: how keys and values are shown.
    pub shown: Shown,
}

impl ListQuery {
    /// Reads the query of a target.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn parse(query: Option<&str>) -> Result<Self, String> {
        let mut parsed = Self {
            prefix: Vec::new(),
            after: Vec::new(),
            limit: LIST_LIMIT_DEFAULT,
            values: true,
            level: Level::Strong,
            shown: Shown::Text,
        };
        let bytes = |name: &str, value: &str| {
            let bytes = percent::decode(value.as_bytes()).map(std::borrow::Cow::into_owned);
            let bytes = bytes.map_err(|_| format!("{name} is not percent-encoded"))?;
            match bytes.len() <= dkv_wire::limits::KEY_BYTES_MAX {
                true => Ok(bytes),
                false => Err(format!("{name} is longer than any key")),
            }
        };
        for field in fields(query) {
            let (name, value) = field?;
            match name {
                "prefix" => parsed.prefix = bytes(name, value)?,
                "after" => parsed.after = bytes(name, value)?,
                "limit" => {
                    let limit = usize::try_from(number(name, value)?).unwrap_or(usize::MAX);
                    if !(1..=LIST_LIMIT_MAX).contains(&limit) {
                        return Err(format!("limit must be from 1 to {LIST_LIMIT_MAX}"));
                    }
                    parsed.limit = limit;
                }
                "values" => {
                    parsed.values = match value {
                        "true" => true,
                        "false" => false,
                        _ => return Err("values must be true or false".into()),
                    }
                }
                "consistency" => parsed.level = level(value)?,
                "encoding" => {
                    parsed.shown = match value {
                        "text" => Shown::Text,
                        "base64" => Shown::Base64,
                        _ => return Err("encoding must be text or base64".into()),
                    }
                }
                _ => {
                    let known = "prefix, after, limit, values, consistency and encoding";
                    return Err(format!("the query may have {known} only"));
                }
            }
        }
        Ok(parsed)
    }
}

/// Names and values of a query, none of them twice.
fn fields(query: Option<&str>) -> impl Iterator<Item = Result<(&str, &str), String>> {
    let query = query.unwrap_or_default();
    let mut seen = Vec::new();
    let long = (query.len() > QUERY_BYTES_MAX).then(|| Err("the query is too long".into()));
    let query = if long.is_some() { "" } else { query };
    let fields = query.split('&').filter(|pair| !pair.is_empty()).map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if seen.contains(&name) {
            return Err(format!("{name} is there twice"));
        }
        seen.push(name);
        Ok((name, value))
    });
    long.into_iter().chain(fields)
}

fn level_of_key(value: &str) -> Result<Level, String> {
    match value {
        "all" => Ok(Level::All),
        other => level(other).map_err(|_| "consistency must be strong, eventual or all".into()),
    }
}

fn level(value: &str) -> Result<Level, String> {
    match value {
        "strong" => Ok(Level::Strong),
        "eventual" => Ok(Level::Eventual),
        _ => Err("consistency must be strong or eventual".into()),
    }
}

fn number(name: &str, value: &str) -> Result<u64, String> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let number = value.parse::<u64>().ok().filter(|_| digits);
    number.ok_or_else(|| format!("{name} must be a whole number"))
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
        let list = ListQuery::parse(Some("prefix=a%2fb&after=%ff&limit=7&values=false")).unwrap();
        assert_eq!((&list.prefix[..], &list.after[..]), (&b"a/b"[..], &b"\xff"[..]));
        assert_eq!((list.limit, list.values, list.level), (7, false, Level::Strong));
        for wrong in ["limit=0", "limit=1001", "prefix=%f", "values=1", "encoding=hex", "other=1"] {
            assert!(ListQuery::parse(Some(wrong)).is_err(), "{wrong}");
        }
        assert!(ListQuery::parse(Some("consistency=all")).is_err());
        assert_eq!(parse("consistency=all").unwrap().level, Level::All);
        for (query, level) in [
            (None, Level::Strong),
            (Some("consistency=strong"), Level::Strong),
            (Some("consistency=eventual"), Level::Eventual),
            (Some("consistency=all"), Level::All),
        ] {
            assert_eq!(level_of_write(query), Ok(level));
        }
        for wrong in ["consistency=session", "consistency", "at_least=1", "consistency=all&x=1"] {
            assert!(level_of_write(Some(wrong)).is_err(), "{wrong}");
        }
        let long = format!("prefix={}", "k".repeat(4097));
        assert!(ListQuery::parse(Some(&long)).is_err());
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
