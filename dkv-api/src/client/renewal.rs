//! Renewal of the certificate before it expires.

use std::sync::Weak;
use std::time::Duration;

use dkv_base::platform;
use dkv_wire::limits;
use dkv_wire::message::{ServerAnswer, ServerRequest};
use tokio::time::Instant;

use crate::connect;
use crate::driver::Driver;

/// Time between two checks whether the certificate is due. Short, because the clock may be set and
/// the machine may sleep at any moment.
const CHECK_EVERY: Duration = Duration::from_secs(30);
/// Time between two attempts to renew a certificate that is still valid.
const RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Renews the certificate when it is due, for as long as the client exists.
pub(super) async fn renew(driver: Weak<Driver>) {
    let mut tried: Option<Instant> = None;
    loop {
        tokio::time::sleep(CHECK_EVERY).await;
        let Some(driver) = driver.upgrade() else { return };
        let Some(credentials) = driver.endpoint.credentials() else { return };
        let now = platform::wall_clock();
        let expired = credentials.expired(now).unwrap_or_default();
        let waits = tried.is_some_and(|at| at.elapsed() < RETRY_AFTER);
        let due = expired || (credentials.is_due(now).unwrap_or_default() && !waits);
        let (true, Ok(public_key)) = (due, credentials.public_key()) else { continue };
        tried = Some(Instant::now());
        if expired {
            // All renewals failed for days; the key still proves the holder.
            match driver.server.recertify(&credentials).await {
                Ok(renewed) => connect::install(&driver.endpoint, &renewed, &driver.store),
                Err(error) => tracing::warn!(%error, "the certificate has expired"),
            }
            continue;
        }
        let request = ServerRequest::Renew { public_key };
        match driver.server.ask(&driver.endpoint, &request, limits::REQUEST_TIMEOUT).await {
            Ok(ServerAnswer::Certificate(certificate)) => {
                let (endpoint, store) = (&driver.endpoint, &driver.store);
                let renewed = connect::install_renewed(endpoint, &credentials, &certificate, store);
                if renewed.is_none() {
                    tracing::warn!("the renewed certificate is not usable");
                }
            }
            Ok(_) => {
                tracing::warn!("the certificate was not renewed: unexpected answer")
            }
            Err(error) => tracing::warn!(%error, "the certificate was not renewed"),
        }
    }
}
