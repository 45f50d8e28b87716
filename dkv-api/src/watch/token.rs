//! Tokens: positions in the changes of shards, as text that people and programs can keep.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use dkv_base::id::{GroupId, Revision};

/// A position from which a watch can go on: for each shard, the revision through which it has shown
/// everything.
///
/// Its text lists the shards in order, as in `1:500,2:33`. In a keyspace with one shard, the
/// revision alone is accepted too.
///
/// # Examples
/// ```
/// use dkv_api::{GroupId, Revision, WatchToken};
///
/// let token: WatchToken = "1:500,2:33".parse()?;
/// assert_eq!(token.revision(GroupId(2)), Some(Revision(33)));
/// assert_eq!(token.to_string(), "1:500,2:33");
/// assert_eq!(WatchToken::from(Revision(500)).to_string(), "500");
/// assert!("1:500,1:33".parse::<WatchToken>().is_err());
/// # Ok::<(), dkv_api::TokenFormError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchToken {
    /// The revision of the only shard, if the token names none.
    plain: Option<Revision>,
    revisions: BTreeMap<GroupId, Revision>,
}

/// A text that is not a [`WatchToken`].
///
/// # Examples
/// ```
/// let wrong = "1:500, 2:33".parse::<dkv_api::WatchToken>().unwrap_err();
/// assert!(wrong.to_string().contains("write SHARD:REVISION"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a position of a watch: write SHARD:REVISION,… as in 1:500,2:33, or a revision"
)]
pub struct TokenFormError(String);

/// Longest text that an error repeats.
const SHOWN_BYTES: usize = 64;

impl WatchToken {
    /// Returns the revision through which a shard has been shown; `None` if the token does not name
    /// the shard.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{GroupId, WatchToken};
    ///
    /// let token: WatchToken = "1:500".parse()?;
    /// assert_eq!(token.revision(GroupId(2)), None);
    /// # Ok::<(), dkv_api::TokenFormError>(())
    /// ```
    pub fn revision(&self, shard: GroupId) -> Option<Revision> {
        self.revisions.get(&shard).copied()
    }

    /// Returns the shards that the token names, with their revisions.
    ///
    /// # Examples
    /// ```
    /// let token: dkv_api::WatchToken = "1:500,2:33".parse()?;
    /// assert_eq!(token.iter().count(), 2);
    /// # Ok::<(), dkv_api::TokenFormError>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (GroupId, Revision)> + '_ {
        self.revisions.iter().map(|(&shard, &revision)| (shard, revision))
    }

    /// Returns the revision of a token that names no shard.
    pub(super) fn plain(&self) -> Option<Revision> {
        self.plain
    }

    /// Sets the revision of a shard, which never goes back.
    pub(crate) fn advance(&mut self, shard: GroupId, revision: Revision) {
        let known = self.revisions.entry(shard).or_insert(revision);
        *known = revision.max(*known);
    }
}

impl From<Revision> for WatchToken {
    fn from(revision: Revision) -> Self {
        Self { plain: Some(revision), revisions: BTreeMap::new() }
    }
}

impl FromIterator<(GroupId, Revision)> for WatchToken {
    fn from_iter<I: IntoIterator<Item = (GroupId, Revision)>>(revisions: I) -> Self {
        Self { plain: None, revisions: revisions.into_iter().collect() }
    }
}

impl fmt::Display for WatchToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(revision) = self.plain {
            return revision.fmt(f);
        }
        for (index, (shard, revision)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{shard}:{revision}")?;
        }
        Ok(())
    }
}

impl FromStr for WatchToken {
    type Err = TokenFormError;

    fn from_str(text: &str) -> Result<Self, TokenFormError> {
        let wrong = || TokenFormError(text.chars().take(SHOWN_BYTES).collect());
        if let Some(revision) = number(text) {
            return Ok(Revision(revision).into());
        }
        let mut token = Self::default();
        for part in text.split(',') {
            let (shard, revision) = part.split_once(':').ok_or_else(wrong)?;
            let shard = number(shard).and_then(|shard| u32::try_from(shard).ok());
            let shard = shard.map(GroupId).filter(|shard| shard.is_shard()).ok_or_else(wrong)?;
            let revision = number(revision).map(Revision).ok_or_else(wrong)?;
            let is_next = token.revisions.last_key_value().is_none_or(|(last, _)| *last < shard);
            if !is_next {
                return Err(wrong());
            }
            token.revisions.insert(shard, revision);
        }
        Ok(token)
    }
}

/// Parses a decimal number in its only form: digits without a sign or leading zeros.
fn number(text: &str) -> Option<u64> {
    let is_plain = text == "0" || !text.starts_with('0');
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain && digits { text.parse().ok() } else { None }
}
