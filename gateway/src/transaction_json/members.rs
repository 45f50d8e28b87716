//! The members of a JSON object, taken one by one. Those that are left in the end are unknown.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

use crate::bytes_json;

/// Members of one object; more than any valid one has are refused.
const MEMBERS_MAX: usize = 12;

/// The members of an object that were not taken yet. None occurs twice.
#[derive(Debug, Default)]
pub(super) struct Members(BTreeMap<String, Value>);

impl Members {
    /// Takes text.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("{name} must be a string")),
        }
    }

    /// Takes bytes: text under the name, or base64 under the name with `_base64`.
    pub(super) fn bytes(&mut self, name: &str) -> Result<Option<Vec<u8>>, String> {
        let (text, base64) = (self.text(name)?, self.text(&format!("{name}_base64"))?);
        bytes_json::take(name, text, base64).map_err(|error| error.to_string())
    }

    /// Takes a boolean.
    pub(super) fn boolean(&mut self, name: &str) -> Result<Option<bool>, String> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(Value::Bool(boolean)) => Ok(Some(boolean)),
            Some(_) => Err(format!("{name} must be true or false")),
        }
    }

    /// Takes a whole number from zero to 64 bits.
    pub(super) fn whole(&mut self, name: &str) -> Result<Option<u64>, String> {
        self.number(name, bytes_json::whole, "a whole number of at most 64 bits")
    }

    /// Takes a whole number of 64 signed bits.
    pub(super) fn signed(&mut self, name: &str) -> Result<Option<i64>, String> {
        self.number(name, bytes_json::signed, "a whole number of 64 bits")
    }

    fn number<T>(
        &mut self,
        name: &str,
        convert: impl Fn(&Number) -> Option<T>,
        what: &str,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.0.remove(name) else { return Ok(None) };
        let number = value.as_number().and_then(convert);
        number.map(Some).ok_or_else(|| format!("{name} must be {what}"))
    }

    /// Checks that no member is left.
    pub(super) fn finish(self, what: &str) -> Result<(), String> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("{what} has no member {name} here")),
        }
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if members.len() == MEMBERS_MAX {
                return Err(A::Error::custom("an object has more members than any may have"));
            }
            let Scalar(value) = map.next_value()?;
            if members.insert(name.clone(), value).is_some() {
                return Err(A::Error::custom(format!("{name} occurs twice")));
            }
        }
        Ok(Members(members))
    }
}

/// A value that is no list and no object, so that it takes no more memory than its text.
struct Scalar(Value);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a number or a boolean")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Scalar, E> {
        Ok(Scalar(value.into()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Scalar, E> {
        Ok(Scalar(value.into()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Scalar, E> {
        Ok(Scalar(value.into()))
    }
}

/// A list of which only the first elements are kept.
#[derive(Debug)]
pub(super) struct AtMost<T, const MOST: usize> {
    pub(super) items: Vec<T>,
    /// The number of all elements.
    pub(super) count: usize,
}

impl<T, const MOST: usize> Default for AtMost<T, MOST> {
    fn default() -> Self {
        Self { items: Vec::new(), count: 0 }
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for AtMost<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(AtMostVisitor(PhantomData))
    }
}

struct AtMostVisitor<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for AtMostVisitor<T, MOST> {
    type Value = AtMost<T, MOST>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut all = AtMost::default();
        while all.items.len() < MOST {
            let Some(item) = list.next_element()? else { break };
            all.items.push(item);
        }
        all.count = all.items.len();
        while list.next_element::<IgnoredAny>()?.is_some() {
            all.count += 1;
        }
        Ok(all)
    }
}
