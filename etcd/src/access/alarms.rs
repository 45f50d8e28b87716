//! Alarms that an administrator has raised: plain data.
//!
//! etcd raises them itself when its disk is full or its replicas differ. A network of dkv raises
//! one only for a quota, which ends by itself; these are those that an administrator has raised.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::error::EtcdError;

/// What an alarm says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Alarm {
    /// There is no room: nothing that takes any is done.
    NoSpace,
    /// The replicas differ: nothing is read or written.
    Corrupt,
}

/// What a request does to the keys, as far as alarms matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It takes room.
    TakesSpace,
    /// It reads, deletes or forgets.
    UsesKeys,
    /// Neither.
    None,
}

/// The alarms that stand, with the ids of members that they were raised for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Alarms {
    raised: BTreeSet<(u64, Alarm)>,
}

/// Alarms that stand at the same time.
const ALARMS_MAX: usize = 1024;

impl Alarms {
    /// Returns whether none stands.
    pub(crate) fn is_empty(&self) -> bool {
        self.raised.is_empty()
    }

    /// Returns those of a kind, or all.
    pub(crate) fn of(&self, alarm: Option<Alarm>) -> Vec<(u64, Alarm)> {
        let wanted = |(_, kind): &&(u64, Alarm)| alarm.is_none_or(|alarm| alarm == *kind);
        self.raised.iter().filter(wanted).copied().collect()
    }

    /// Raises an alarm; returns whether it did not stand before.
    pub(crate) fn raise(&mut self, member: u64, alarm: Alarm) -> Result<bool, EtcdError> {
        if self.raised.len() >= ALARMS_MAX {
            return Err(EtcdError::REQUEST_TOO_MANY_REQUESTS);
        }
        Ok(self.raised.insert((member, alarm)))
    }

    /// Disarms an alarm; returns whether it stood.
    pub(crate) fn disarm(&mut self, member: u64, alarm: Alarm) -> bool {
        self.raised.remove(&(member, alarm))
    }

    /// Checks that no alarm forbids a request.
    ///
    /// # Errors
    /// One does.
    pub(crate) fn check(&self, effect: Effect) -> Result<(), EtcdError> {
        let stands = |alarm| self.raised.iter().any(|(_, raised)| *raised == alarm);
        match effect {
            Effect::None => Ok(()),
            _ if stands(Alarm::Corrupt) => Err(EtcdError::CORRUPT),
            Effect::TakesSpace if stands(Alarm::NoSpace) => Err(EtcdError::NO_SPACE),
            Effect::TakesSpace | Effect::UsesKeys => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_forbids_what_etcd_forbids_until_it_is_disarmed() {
        let mut alarms = Alarms::default();
        let check = |alarms: &Alarms| {
            [Effect::TakesSpace, Effect::UsesKeys, Effect::None].map(|effect| alarms.check(effect))
        };
        assert_eq!(check(&alarms), [Ok(()), Ok(()), Ok(())]);
        assert_eq!(alarms.raise(7, Alarm::NoSpace), Ok(true));
        assert_eq!(alarms.raise(7, Alarm::NoSpace), Ok(false));
        assert_eq!(check(&alarms), [Err(EtcdError::NO_SPACE), Ok(()), Ok(())]);
        assert_eq!(alarms.raise(0, Alarm::Corrupt), Ok(true));
        let corrupt = || Err(EtcdError::CORRUPT);
        assert_eq!(check(&alarms), [corrupt(), corrupt(), Ok(())]);
        assert_eq!(alarms.of(Some(Alarm::Corrupt)), [(0, Alarm::Corrupt)]);
        assert!(alarms.disarm(0, Alarm::Corrupt) && !alarms.disarm(0, Alarm::Corrupt));
        assert!(alarms.disarm(7, Alarm::NoSpace) && alarms.is_empty());
    }
}
