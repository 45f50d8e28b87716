//! Protection against pages of other origins, as a layer of the gateway. The rules are those of
//! every face: see [`dkv_listener::same_origin`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use axum::middleware::Next;
use axum::response::IntoResponse;
use dkv_listener::same_origin::{AcceptedNames, ForeignRequest, Head, add_protection};

use crate::args::Args;
use crate::denials;
use crate::metrics::Metrics;
use crate::problem::Problem;

/// Returns the names of a gateway at an address.
pub(crate) fn accepted_names(address: SocketAddr, args: &Args) -> AcceptedNames {
    AcceptedNames {
        address,
        given: args.host.clone(),
        only_given: !args.host.is_empty(),
        needs_token: args.needs_token(address),
    }
}

/// The state of [`check`].
#[derive(Clone)]
pub(crate) struct OriginGuard {
    pub(crate) names: Arc<AcceptedNames>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Passes a request on or refuses it, and adds to each answer what a browser may do with it.
pub(crate) async fn check(
    State(guard): State<OriginGuard>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let begun = Instant::now();
    let head = Head {
        method: request.method(),
        uri: request.uri(),
        version: request.version(),
        headers: request.headers(),
    };
    let mut response = match guard.names.check(&head) {
        Ok(()) => next.run(request).await,
        Err(foreign) => {
            let problem = problem(&foreign, guard.names.address);
            let asked = (request.method(), request.uri());
            denials::note(asked, request.extensions(), None, &problem.detail);
            guard.metrics.count(request.method(), request.uri().path(), problem.status, begun);
            problem.into_response()
        }
    };
    add_protection(response.headers_mut());
    response
}

fn problem(foreign: &ForeignRequest, address: SocketAddr) -> Problem {
    let (code, why) = match foreign {
        ForeignRequest::Host(why) => ("host", (*why).to_owned()),
        ForeignRequest::Name(name) => {
            let why = format!(
                "this gateway does not answer to the name {name:?}; use {address}, or start the \
                 gateway with --host NAME"
            );
            ("host", why)
        }
        ForeignRequest::Origin | ForeignRequest::Site => ("origin", foreign.to_string()),
    };
    Problem::new(foreign.status(), code, why)
}

#[cfg(test)]
mod tests;
