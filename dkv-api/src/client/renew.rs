//! Keeps the certificate from ending.

use std::sync::Weak;
use std::time::Duration;

use dkv_base::platform;
use dkv_wire::limits;
use dkv_wire::message::{ServerAnswer, ServerRequest};
use tokio::time::Instant;

use crate::connect;
use crate::shared::Shared;

/// How often it is looked whether the certificate is due: a clock may be set at any moment, and a
/// machine sleep.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Time between two attempts to renew a certificate that is still valid.
const AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// Renews the certificate before it ends, for as long as the client lives.
pub(super) async fn renew(shared: Weak<Shared>) {
    let mut tried: Option<Instant> = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(shared) = shared.upgrade() else { return };
        let Some(credentials) = shared.endpoint.credentials() else { return };
        let now = platform::wall_clock();
        let expired = credentials.expired(now).unwrap_or_default();
        let rests = tried.is_some_and(|at| at.elapsed() < AGAIN_AFTER);
        let due = expired || (credentials.is_due(now).unwrap_or_default() && !rests);
        let (true, Ok(public_key)) = (due, credentials.public_key()) else { continue };
        tried = Some(Instant::now());
        if expired {
            // Nobody was there to renew it for days; its key still proves whose it was.
            match shared.server.recertify(&credentials).await {
                Ok(renewed) => connect::take(&shared.endpoint, &renewed, &shared.keep),
                Err(error) => tracing::warn!(%error, "the certificate has expired"),
            }
            continue;
        }
        let request = ServerRequest::Renew { public_key };
        match shared.server.ask(&shared.endpoint, &request, limits::REQUEST_TIMEOUT).await {
            Ok(ServerAnswer::Certificate(certificate)) => {
                let keep = &shared.keep;
                let renewed =
                    connect::take_renewed(&shared.endpoint, &credentials, &certificate, keep);
                if renewed.is_none() {
                    tracing::warn!("the renewed certificate is not usable");
                }
            }
            Ok(_) => tracing::warn!("the server answered another question than to renew"),
            Err(error) => tracing::warn!(%error, "the certificate was not renewed"),
        }
    }
}
