//! Protection against pages of other origins: a page in a browser may ask for nothing, unless it is
//! the face's own.
//!
//! A browser sends requests on behalf of every page that it shows, from the machine and the network
//! that it runs in. Three header fields show on whose behalf, and a page can set none of them:
//!
//! - `Host` is the name under which the face was reached. A page whose name was made to point here
//!   (DNS rebinding) arrives under that name. On loopback the face answers to `localhost`, to its
//!   address and to the names that it was given, at its own port. Elsewhere without tokens it
//!   answers to addresses, `localhost` and the names that it was given; it answers to other names
//!   only if nothing about the request looks like a browser. With tokens any name will do, because
//!   such a page has no token.
//! - `Origin` names the page that writes, or that reads with a script. It must be this face.
//! - `Sec-Fetch-Site` tells of every other load, such as an image, whose page asked for it. Only
//!   the face's own pages and the person at the browser (`none`) may ask. A link may lead to the
//!   page at `/`.
//!
//! Programs send neither of the last two, and are not judged by them. A browser that sends no
//! `Sec-Fetch-Site`, as all do over plain HTTP to another machine, gets
//! `Cross-Origin-Resource-Policy` with every answer, which hides the answer, error or value alike,
//! from the page that asked. A face refuses before it looks at a path or a token, so a refusal
//! reveals nothing of the store.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::{
    ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_SECURITY_POLICY, COOKIE, HOST, ORIGIN, REFERER,
    REFERRER_POLICY, USER_AGENT, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};

use crate::host_name::HostName;
use crate::is_loopback;

/// The policy of an answer that is not a page: it may load nothing, and appear in no frame.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'; sandbox";

/// The names under which a face answers.
#[derive(Clone, Debug)]
pub struct AcceptedNames {
    /// Its address.
    pub address: SocketAddr,
    /// The names that it was given.
    pub given: Vec<HostName>,
    /// Whether programs have to use one of those too, if there are any.
    pub only_given: bool,
    /// Whether every request needs a token.
    pub needs_token: bool,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForeignRequest {
    /// Its `Host` is missing or malformed.
    #[error("{0}")]
    Host(&'static str),
    /// The face does not answer to this name.
    #[error("the name {0:?} is not answered to")]
    Name(String),
    /// It is on behalf of a page of another origin.
    #[error("cross-origin requests are not allowed")]
    Origin,
    /// It is a load of a page of another site.
    #[error("cross-site requests are not allowed")]
    Site,
}

impl ForeignRequest {
    /// Returns the status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Host(_) => StatusCode::BAD_REQUEST,
            Self::Name(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::Origin | Self::Site => StatusCode::FORBIDDEN,
        }
    }
}

/// The head of a request, as far as it matters.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target.
    pub uri: &'a Uri,
    /// The version of HTTP.
    pub version: Version,
    /// The header fields.
    pub headers: &'a HeaderMap,
}

impl AcceptedNames {
    fn is_given(&self, name: &HostName, default_port: Option<u16>) -> bool {
        self.given.iter().any(|given| given.covers(name, default_port))
    }

    /// Whether the face answers under a name. `browser` is whether the request may come from a
    /// browser.
    fn accepts(&self, name: &HostName, browser: bool) -> bool {
        if self.is_given(name, None) {
            return true;
        }
        let address = name.address().map(|address| address.to_canonical());
        let is_localhost = name.host == "localhost";
        if self.needs_token {
            return !self.only_given || is_localhost || address.is_some();
        }
        if is_loopback(self.address) {
            let own = [IpAddr::from([127, 0, 0, 1]), Ipv6Addr::LOCALHOST.into()];
            let is_own = address
                .is_some_and(|it| own.contains(&it) || it == self.address.ip().to_canonical());
            let has_own_port = name.port.is_none_or(|port| port == self.address.port());
            return (is_localhost || is_own) && has_own_port;
        }
        // An address cannot be made to point elsewhere. Any port will do: it may be mapped.
        is_localhost || address.is_some() || (!self.only_given && !browser)
    }

    /// Refuses the request of a page of another origin.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn check(&self, head: &Head<'_>) -> Result<(), ForeignRequest> {
        let invalid = ForeignRequest::Host;
        let mut hosts: Vec<&str> = Vec::new();
        // HTTP/2 has it in the target, and there may be a field too.
        hosts.extend(head.uri.authority().map(Authority::as_str));
        let mut fields = head.headers.get_all(HOST).iter();
        if let Some(field) = fields.next() {
            hosts.push(field.to_str().map_err(|_| invalid("Host is not a host name"))?);
        }
        if fields.next().is_some() {
            return Err(invalid("there is more than one Host"));
        }
        if hosts.is_empty() && head.version == Version::HTTP_11 {
            return Err(invalid("Host is missing"));
        }
        let browser = may_be_a_browser(head.headers);
        let mut names = Vec::with_capacity(hosts.len());
        for host in hosts {
            let Ok(name) = HostName::parse(host) else {
                return Err(invalid("Host is not a host name"));
            };
            if !self.accepts(&name, browser) {
                return Err(ForeignRequest::Name(host.to_owned()));
            }
            names.push(name);
        }
        self.check_origin(head.headers, names.first())?;
        check_fetch_site(head)
    }

    /// Refuses requests of pages of another origin.
    fn check_origin(
        &self,
        headers: &HeaderMap,
        host: Option<&HostName>,
    ) -> Result<(), ForeignRequest> {
        let mut fields = headers.get_all(ORIGIN).iter();
        let Some(field) = fields.next() else { return Ok(()) };
        let origin = field.to_str().ok().and_then(|origin| origin.split_once("://"));
        let known = origin.and_then(|(scheme, origin)| {
            let default_port = match scheme {
                "http" => 80,
                "https" => 443,
                _ => return None,
            };
            let origin = HostName::parse(origin).ok()?;
            let same = host.is_some_and(|host| {
                let port = |name: &HostName| name.port.unwrap_or(default_port);
                host.host == origin.host && port(host) == port(&origin)
            });
            // A TLS proxy may have another name than the one under which it asks.
            Some(same || self.is_given(&origin, Some(default_port)))
        });
        if known == Some(true) && fields.next().is_none() {
            return Ok(());
        }
        Err(ForeignRequest::Origin)
    }
}

/// Refuses loads on behalf of pages of another site or another port of this machine, except a link
/// to the face's page.
fn check_fetch_site(head: &Head<'_>) -> Result<(), ForeignRequest> {
    let field = |name: &'static str| head.headers.get(HeaderName::from_static(name));
    let mut sites = head.headers.get_all("sec-fetch-site").iter().peekable();
    if sites.peek().is_none() || sites.all(|site| site == "same-origin" || site == "none") {
        return Ok(());
    }
    let is_link = field("sec-fetch-mode").is_some_and(|mode| mode == "navigate")
        && field("sec-fetch-dest").is_some_and(|dest| dest == "document")
        && *head.method == Method::GET
        && head.uri.path() == "/";
    if is_link {
        return Ok(());
    }
    Err(ForeignRequest::Site)
}

/// Whether a request has any field that browsers send with each request and programs do not. A
/// script can change some of these fields, but remove only the last two.
fn may_be_a_browser(headers: &HeaderMap) -> bool {
    let has = |name: HeaderName| headers.contains_key(name);
    let agent = headers.get(USER_AGENT).map_or(&b""[..], HeaderValue::as_bytes);
    has(ACCEPT_LANGUAGE)
        || has(ORIGIN)
        || has(HeaderName::from_static("sec-fetch-site"))
        || agent.starts_with(b"Mozilla/")
        || has(REFERER)
        || has(COOKIE)
}

/// Forbids other pages to load, frame, open or sniff an answer, and caches to keep it unless it
/// says otherwise.
pub fn add_protection(headers: &mut HeaderMap) {
    for (name, value) in [
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(POLICY));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

#[cfg(test)]
mod tests;
