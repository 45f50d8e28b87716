//! An event, and its line.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use crate::json_object::Object;
use crate::platform;

/// Most bytes of a text in a line. Nothing else may have bounded it.
const TEXT_BYTES_MAX: usize = 1024;

/// From where somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerAddress {
    /// An address and a port.
    Socket(SocketAddr),
    /// An address, where the port is not known.
    Ip(IpAddr),
}

impl CallerAddress {
    /// The address without its port.
    pub(super) fn ip(self) -> IpAddr {
        match self {
            Self::Socket(address) => address.ip(),
            Self::Ip(ip) => ip,
        }
    }
}

impl fmt::Display for CallerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

/// Who did or asked something, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// The face through which it came; `None` for the process itself.
    pub at: Option<&'static str>,
    /// Its role, or `bearer`.
    pub role: Option<&'static str>,
    /// The name in the inventory of holders.
    pub name: Option<String>,
    /// The user, of the credential or the one for whom it was asked.
    pub user: Option<String>,
    /// The id of the credential.
    pub holder: Option<Uuid>,
    /// From where it came.
    pub address: Option<CallerAddress>,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.role, self.holder, &self.user) {
            (Some(role), Some(holder), Some(user)) => write!(f, "{role} {holder} ({user})"),
            (Some(role), Some(holder), None) => write!(f, "{role} {holder}"),
            (_, _, Some(user)) => f.write_str(user),
            _ => f.write_str("anybody"),
        }
    }
}

/// An act or a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct What {
    /// The act, in a few words.
    pub act: Cow<'static, str>,
    /// What it was done to; may be empty.
    pub target: String,
    /// The keyspace, if it concerns one.
    pub keyspace: Option<String>,
    /// The keys, if it concerns some.
    pub keys: Option<String>,
}

impl What {
    /// An act that concerns no keys.
    pub fn new(act: &'static str, target: impl Into<String>) -> Self {
        Self { act: act.into(), target: target.into(), ..Self::default() }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.act)?;
        if !self.target.is_empty() {
            write!(f, " {}", self.target)?;
        }
        let Some(keys) = &self.keys else { return Ok(()) };
        let before = if self.target.is_empty() { "" } else { " for" };
        write!(f, "{before} {keys}")?;
        self.keyspace.as_ref().map_or(Ok(()), |keyspace| write!(f, " in keyspace {keyspace}"))
    }
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was denied, for this reason.
    Denied(String),
    /// It failed, for this reason, and has no effect.
    Failed(String),
    /// It is not known, for this reason.
    Unknown(String),
}

/// The kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Act,
    Denial,
    Write,
    /// The audit log says something of itself.
    Audit,
}

/// One line of an audit file.
#[derive(Clone, Debug)]
pub(super) struct AuditEvent {
    pub(super) at: SystemTime,
    pub(super) kind: Kind,
    pub(super) who: Who,
    pub(super) what: What,
    pub(super) outcome: Outcome,
    /// Events that are not told, and that this one stands for.
    pub(super) suppressed: u64,
}

impl AuditEvent {
    pub(super) fn new(kind: Kind, who: Who, what: What) -> Self {
        let at = platform::wall_clock();
        Self { at, kind, who, what, outcome: Outcome::Done, suppressed: 0 }
    }

    /// Returns the event as a JSON object, without the end of the line.
    pub(super) fn line(&self) -> String {
        let mut line = Object::default();
        line.text("time", &rfc3339(self.at));
        let Who { at, role, name, user, holder, address } = &self.who;
        line.text("at", at.unwrap_or_default());
        line.text(
            "kind",
            match self.kind {
                Kind::Act => "act",
                Kind::Denial => "denial",
                Kind::Write => "write",
                Kind::Audit => "audit",
            },
        );
        let mut optional = |field: &str, text: Option<&str>| {
            if let Some(text) = text {
                line.text(field, cut(text));
            }
        };
        optional("role", *role);
        optional("name", name.as_deref());
        optional("user", user.as_deref());
        optional("holder", holder.map(|holder| holder.to_string()).as_deref());
        optional("address", address.map(|address| address.to_string()).as_deref());
        let What { act, target, keyspace, keys } = &self.what;
        optional("act", Some(act));
        optional("target", Some(target.as_str()).filter(|target| !target.is_empty()));
        optional("keyspace", keyspace.as_deref());
        optional("keys", keys.as_deref());
        let (outcome, why) = match &self.outcome {
            Outcome::Done => ("done", None),
            Outcome::Denied(why) => ("denied", Some(why)),
            Outcome::Failed(why) => ("failed", Some(why)),
            Outcome::Unknown(why) => ("unknown", Some(why)),
        };
        optional("outcome", Some(outcome));
        optional("why", why.map(String::as_str));
        if self.suppressed > 0 {
            line.plain("suppressed", self.suppressed);
        }
        line.end()
    }
}

/// Cuts a text that is too long.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Returns a time in UTC in the form of RFC 3339, with microseconds. Times before 1970 are shown as
/// its beginning.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86400, since.as_secs() % 86400);
    // Howard Hinnant, "chrono-compatible low-level date algorithms": years begin in March, so that
    // a leap day is the last of its year.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, year) = match month {
        0..10 => (month + 3, year + era * 400),
        _ => (month - 9, year + era * 400 + 1),
    };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let micros = since.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let shown = |seconds: u64| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
        // As `date -u -d @SECONDS` shows them.
        for (seconds, time) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(shown(seconds), time);
        }
        let half = UNIX_EPOCH + Duration::from_micros(1_500_042);
        assert_eq!(rfc3339(half), "1970-01-01T00:00:01.500042Z");
    }

    #[test]
    fn an_act_is_a_phrase() {
        assert_eq!(What::new("rebalance", "").to_string(), "rebalance");
        assert_eq!(What::new("revoke", "1").to_string(), "revoke 1");
        let keys = |target: &str| What {
            keyspace: Some("default".into()),
            keys: Some("key \"a\"".into()),
            ..What::new("put", target)
        };
        assert_eq!(keys("").to_string(), "put key \"a\" in keyspace default");
        assert_eq!(keys("b").to_string(), "put b for key \"a\" in keyspace default");
    }

    #[test]
    fn a_line_has_what_is_known_and_no_more() {
        let who = Who {
            at: Some("node"),
            role: Some("admin"),
            user: Some("alice".into()),
            holder: Some(Uuid::nil()),
            address: Some(CallerAddress::Socket(([10, 0, 0, 9], 5).into())),
            name: None,
        };
        assert_eq!(who.to_string(), format!("admin {} (alice)", Uuid::nil()));
        let what = What { keys: Some("key \"a\nb\"".into()), ..What::new("put", "") };
        let event = AuditEvent { at: UNIX_EPOCH, ..AuditEvent::new(Kind::Write, who, what) };
        let line = event.line();
        let expected = concat!(
            r#"{"time":"1970-01-01T00:00:00.000000Z","at":"node","kind":"write","role":"admin","#,
            r#""user":"alice","holder":"00000000-0000-0000-0000-000000000000","#,
            r#""address":"10.0.0.9:5","act":"put","keys":"key \"a\nb\"","outcome":"done"}"#,
        );
        assert_eq!(line, expected);
        let denied = Outcome::Denied("ä".repeat(TEXT_BYTES_MAX));
        let denied = AuditEvent { outcome: denied, suppressed: 3, ..event };
        let line = denied.line();
        assert!(line.ends_with("\",\"suppressed\":3}") && line.len() < 2 * TEXT_BYTES_MAX);
    }
}
