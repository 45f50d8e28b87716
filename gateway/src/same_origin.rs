//! What a page in a browser may ask: nothing, unless it is the gateway's own.
//!
//! A browser sends requests for every page that it shows, from the machine and with the network
//! that it is in. Three header fields tell whose request it is, and a page can set none of them:
//!
//! - `Host` is the name under which the gateway was reached. A page whose name was made to point
//!   here (DNS rebinding) comes under that name. On loopback the gateway answers to `localhost`, to
//!   its address and to what `--host` names, with its own port. Elsewhere without tokens it answers
//!   to addresses, `localhost` and what `--host` names, and to other names only if nothing about
//!   the request is a browser's. With tokens any name will do, because such a page has no token.
//! - `Origin` is where a page came from that writes, or reads with a script. It must be this
//!   gateway.
//! - `Sec-Fetch-Site` says of every other load, such as an image, whose page asked for it. Only the
//!   gateway's own pages and the person at the browser (`none`) may. A link may lead to the page at
//!   `/`.
//!
//! Programs send none of the last two, and are not judged by them. A browser that sends no
//! `Sec-Fetch-Site`, as all do over plain HTTP to another machine, gets every answer with
//! `Cross-Origin-Resource-Policy`, which keeps it from the page that asked, an error or a value
//! alike. Every refusal is given before a path or a token is looked at, so it tells nothing of the
//! store.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_SECURITY_POLICY, COOKIE, HOST, ORIGIN, REFERER,
    REFERRER_POLICY, USER_AGENT, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use axum::middleware::Next;
use axum::response::IntoResponse;

use crate::args::{Args, is_loopback};
use crate::metrics::Metrics;
use crate::problem::Problem;

/// What an answer may do that is no page: nothing, and in no frame.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'; sandbox";

/// A name, and a port if one was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// In lower case; of an IPv6 address without brackets.
    host: String,
    port: Option<u16>,
}

impl Name {
    /// Reads `NAME` or `NAME:PORT`, as in `Host` and after `--host`.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a host name with or without a port");
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']').ok_or_else(wrong)?;
                let address: std::net::Ipv6Addr = address.parse().map_err(|_| wrong())?;
                (address.to_string(), port.strip_prefix(':').or(port.is_empty().then_some("")))
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host.to_ascii_lowercase(), Some(port)),
                None => (text.to_ascii_lowercase(), Some("")),
            },
        };
        let is_part =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
        if host.is_empty() || !host.bytes().all(is_part) {
            return Err(wrong());
        }
        let port = match port.ok_or_else(wrong)? {
            "" => None,
            port if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(port.parse().map_err(|_| wrong())?)
            }
            _ => return Err(wrong()),
        };
        Ok(Self { host, port })
    }

    fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether this names the other, whose port is the usual one of its scheme if it says none.
    fn covers(&self, other: &Self, usual_port: Option<u16>) -> bool {
        self.host == other.host
            && self.port.is_none_or(|port| other.port.or(usual_port) == Some(port))
    }
}

/// Under which names a gateway answers.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    address: SocketAddr,
    /// Those of the command line.
    given: Vec<Name>,
    /// Whether every request shows a token.
    tokens: bool,
}

impl Names {
    /// Of a gateway at that address.
    pub(crate) fn new(address: SocketAddr, args: &Args) -> Self {
        Self { address, given: args.host.clone(), tokens: args.asks_for_tokens(address) }
    }

    fn is_given(&self, name: &Name, usual_port: Option<u16>) -> bool {
        self.given.iter().any(|given| given.covers(name, usual_port))
    }

    /// Whether it answers under that name. `browser` is whether a browser may have sent it.
    fn knows(&self, name: &Name, browser: bool) -> bool {
        if self.is_given(name, None) {
            return true;
        }
        let address = name.address().map(|address| address.to_canonical());
        let is_localhost = name.host == "localhost";
        if self.tokens {
            return self.given.is_empty() || is_localhost || address.is_some();
        }
        if is_loopback(self.address) {
            let own = [IpAddr::from([127, 0, 0, 1]), std::net::Ipv6Addr::LOCALHOST.into()];
            let is_own = address
                .is_some_and(|it| own.contains(&it) || it == self.address.ip().to_canonical());
            let has_own_port = name.port.is_none_or(|port| port == self.address.port());
            return (is_localhost || is_own) && has_own_port;
        }
        // Nobody can make an address point elsewhere; and a port may be mapped on the way.
        is_localhost || address.is_some() || (self.given.is_empty() && !browser)
    }

    fn refuse(&self, name: &str) -> Problem {
        let why = format!(
            "this gateway does not answer to the name {name:?}; ask for {}, or start it with --host \
             NAME",
            self.address
        );
        Problem::new(StatusCode::MISDIRECTED_REQUEST, "host", why)
    }

    /// Judges whose request it is.
    fn judge(&self, head: &Parts) -> Result<(), Problem> {
        let wrong = |why: &str| Problem::new(StatusCode::BAD_REQUEST, "host", why);
        let mut hosts: Vec<&str> = Vec::new();
        // Of HTTP/2 it is in the target, and there may be a field beside it.
        hosts.extend(head.uri.authority().map(axum::http::uri::Authority::as_str));
        let mut fields = head.headers.get_all(HOST).iter();
        if let Some(field) = fields.next() {
            hosts.push(field.to_str().map_err(|_| wrong("Host is not a name"))?);
        }
        if fields.next().is_some() {
            return Err(wrong("there is more than one Host"));
        }
        if hosts.is_empty() && head.version == Version::HTTP_11 {
            return Err(wrong("Host is missing"));
        }
        let browser = may_be_a_browser(&head.headers);
        let mut names = Vec::with_capacity(hosts.len());
        for host in hosts {
            let Ok(name) = Name::parse(host) else { return Err(wrong("Host is not a name")) };
            if !self.knows(&name, browser) {
                return Err(self.refuse(host));
            }
            names.push(name);
        }
        self.judge_origin(&head.headers, names.first())?;
        judge_site(head)
    }

    /// A page of another origin has nothing to ask here.
    fn judge_origin(&self, headers: &HeaderMap, host: Option<&Name>) -> Result<(), Problem> {
        let mut fields = headers.get_all(ORIGIN).iter();
        let Some(field) = fields.next() else { return Ok(()) };
        let origin = field.to_str().ok().and_then(|origin| origin.split_once("://"));
        let known = origin.and_then(|(scheme, origin)| {
            let usual_port = match scheme {
                "http" => 80,
                "https" => 443,
                _ => return None,
            };
            let origin = Name::parse(origin).ok()?;
            let same = host.is_some_and(|host| {
                let port = |name: &Name| name.port.unwrap_or(usual_port);
                host.host == origin.host && port(host) == port(&origin)
            });
            // A proxy with TLS may ask under another name than it is asked under.
            Some(same || self.is_given(&origin, Some(usual_port)))
        });
        if known == Some(true) && fields.next().is_none() {
            return Ok(());
        }
        Err(Problem::new(StatusCode::FORBIDDEN, "origin", "cross-origin requests are not allowed"))
    }
}

/// A page of another site, or of another port of this machine, loads nothing from here. A link to
/// the page is a link.
fn judge_site(head: &Parts) -> Result<(), Problem> {
    let field = |name: &'static str| head.headers.get(HeaderName::from_static(name));
    let mut sites = head.headers.get_all("sec-fetch-site").iter().peekable();
    if sites.peek().is_none() || sites.all(|site| site == "same-origin" || site == "none") {
        return Ok(());
    }
    let is_link = field("sec-fetch-mode").is_some_and(|mode| mode == "navigate")
        && field("sec-fetch-dest").is_some_and(|dest| dest == "document")
        && head.method == Method::GET
        && head.uri.path() == "/";
    if is_link {
        return Ok(());
    }
    let why = "cross-site requests are not allowed";
    Err(Problem::new(StatusCode::FORBIDDEN, "origin", why))
}

/// Whether anything is there that a browser sends with each request and programs do not. A script
/// can change some of these fields, and take away none but the last two.
fn may_be_a_browser(headers: &HeaderMap) -> bool {
    let is_there = |name: HeaderName| headers.contains_key(name);
    let agent = headers.get(USER_AGENT).map_or(&b""[..], HeaderValue::as_bytes);
    is_there(ACCEPT_LANGUAGE)
        || is_there(ORIGIN)
        || is_there(HeaderName::from_static("sec-fetch-site"))
        || agent.starts_with(b"Mozilla/")
        || is_there(REFERER)
        || is_there(COOKIE)
}

/// What [`check`] goes by.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) names: Arc<Names>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Lets a request through or refuses it, and says with each answer what a browser may do with it.
pub(crate) async fn check(
    State(guard): State<Guard>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let begun = Instant::now();
    let (head, body) = request.into_parts();
    let mut response = match guard.names.judge(&head) {
        Ok(()) => next.run(Request::from_parts(head, body)).await,
        Err(problem) => {
            guard.metrics.count(&head.method, head.uri.path(), problem.status, begun);
            problem.into_response()
        }
    };
    protect(response.headers_mut());
    response
}

/// No other page may load, frame, open or sniff an answer, and no cache keeps what has not said
/// how.
fn protect(headers: &mut HeaderMap) {
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
