//! The renewal of a running node's certificate.

use std::sync::Arc;
use std::time::Duration;

use dkv_base::platform;
use dkv_wire::certificate::Credentials;
use dkv_wire::join::recertify;
use dkv_wire::limits;
use dkv_wire::message::{ServerAnswer, ServerRequest};
use dkv_wire::quic::Endpoint;
use dkv_wire::tls::Admit;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::net::server_link::ServerError;
use crate::node::{Connections, Node};
use crate::process::error::ProcessError;
use crate::storage::data_dir::DataDir;

/// Time between two attempts to renew a certificate that is still valid.
const RENEW_AGAIN: Duration = Duration::from_secs(600);

/// Renews the certificate when it has reached a good part of its life. Checks often, because the
/// clock may jump at any moment: it may be set, or the machine may have slept.
pub(crate) async fn keep_certified(node: Arc<Node>) {
    let mut failed: Option<Instant> = None;
    loop {
        node.ticks().pause(limits::CERTIFICATE_CHECK).await;
        let rests = |credentials: &Credentials| {
            let valid = !credentials.expired(platform::wall_clock()).unwrap_or(true);
            failed.is_some_and(|at| valid && at.elapsed() < RENEW_AGAIN)
        };
        if node.connections().endpoint().credentials().is_none_or(|credentials| rests(&credentials))
        {
            continue;
        }
        failed = match renew_if_due(node.connections(), node.store().data_dir()).await {
            Ok(()) => None,
            Err(error) => {
                // For an invalid certificate, the node tries without a pause, and logs the failure
                // now and then.
                if failed.is_none_or(|at| at.elapsed() >= RENEW_AGAIN) {
                    warn!(%error, "the certificate was not renewed");
                    Some(Instant::now())
                } else {
                    failed
                }
            }
        };
    }
}

async fn renew_if_due(connections: &Connections, data_dir: &DataDir) -> Result<(), ProcessError> {
    let Some(credentials) = connections.endpoint().credentials() else { return Ok(()) };
    let now = platform::wall_clock();
    let is_valid = !credentials.expired(now)?;
    if is_valid && !credentials.is_due(now)? {
        return Ok(());
    }
    let renewed = if !is_valid {
        let endpoint = Endpoint::dial_only(None)?;
        let server = connections.server().answering(&endpoint).await?;
        recertify(&endpoint, server, &credentials).await?
    } else {
        let public_key = credentials.public_key()?;
        let answer = connections.server().ask(&ServerRequest::Renew { public_key }).await;
        let ServerAnswer::Certificate(certificate) = answer? else {
            return Err(ServerError::Unexpected.into());
        };
        credentials.renewed(&certificate)?
    };
    data_dir.save_credentials(&renewed)?;
    connections.endpoint().set_credentials(renewed, Some(Admit::Certified))?;
    info!("certificate renewed");
    Ok(())
}
