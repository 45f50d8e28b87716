//! Keeps the certificate from ending.

use std::sync::Weak;
use std::time::Duration;

use dkv_wire::limits;
use dkv_wire::message::{ServerAnswer, ServerRequest};
use dkv_wire::platform;

use crate::connect;
use crate::shared::Shared;

/// How often the age of the certificate is looked at.
const RENEW_EVERY: Duration = Duration::from_secs(3600);

/// Renews the certificate before it ends, for as long as the client lives.
pub(super) async fn renew(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        let Some(shared) = shared.upgrade() else { return };
        let Some(credentials) = shared.endpoint.credentials() else { return };
        let age = credentials.age(platform::wall_clock()).unwrap_or_default();
        let (true, Ok(public_key)) = (age > limits::CERTIFICATE_RENEW, credentials.public_key())
        else {
            continue;
        };
        if credentials.expired(platform::wall_clock()).unwrap_or_default() {
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
