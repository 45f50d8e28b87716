//! What the gateway itself refuses, in the audit log. What nodes deny its callers they tell
//! themselves.

use std::net::SocketAddr;

use axum::http::{Extensions, Method, Uri};
use dkv_base::audit::{self, What, Who};
use dkv_base::logging::brief;
use dkv_wire::bearer::Bearer;

/// The face, as the audit log has it.
const FACE: &str = "http";

/// From where a request comes: an extension of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CameFrom(pub(crate) SocketAddr);

/// Tells that a request was refused, to the bearer of a token if it showed one of the network.
pub(crate) fn note(
    (method, uri): (&Method, &Uri),
    extensions: &Extensions,
    bearer: Option<&Bearer>,
    why: &str,
) {
    let who = Who {
        at: Some(FACE),
        role: bearer.map(|_| "bearer"),
        user: bearer.and_then(|bearer| bearer.user).map(|user| user.to_string()),
        holder: bearer.map(|bearer| bearer.holder.0),
        address: extensions.get::<CameFrom>().map(|CameFrom(address)| (*address).into()),
        name: None,
    };
    // Without the query, which may have anything in it. Nothing has bounded the method, either.
    let what = What::new("HTTP request", brief(&format!("{method} {}", uri.path())));
    audit::denied(who, what, why);
}
