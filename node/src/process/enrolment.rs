//! How a node joins a network: once in its life, with a token, by which it receives its identity.
//!
//! A node whose certificate has expired asks for a new one here too, before it starts.

use std::net::SocketAddr;
use std::time::Duration;

use dkv_base::platform;
use dkv_wire::certificate::Credentials;
use dkv_wire::identity::Role;
use dkv_wire::join::{JoinError, TokenError, find_token, join, readmit, recertify};
use dkv_wire::message::JoinRefusal;
use dkv_wire::quic::Endpoint;
use dkv_wire::race::answering_first;
use dkv_wire::token::Token;
use tokio::time::Instant;
use tracing::warn;

use crate::net::server_link::resolve;
use crate::process::args::Args;
use crate::process::error::ProcessError;
use crate::storage::data_dir::DataDir;

/// Time between two attempts to reach a server without which a node cannot go on.
pub(super) const SERVER_RETRY: Duration = Duration::from_millis(500);
/// Interval between reminders that the server cannot be reached.
const SERVER_REMIND: Duration = Duration::from_secs(5);

/// Joins with a token.
pub(crate) async fn admit(args: &Args, directory: &DataDir) -> Result<Credentials, ProcessError> {
    let endpoint = Endpoint::dial_only(None)?;
    let (mut waiting, mut servers) = (Waiting::default(), Servers::default());
    loop {
        let server = servers.answering(args, &endpoint).await?;
        // The token is looked up each time: a server that is just starting may not have left it
        // yet.
        let token = token_for(args, server).await?;
        let failed = match token {
            Ok(token) => match join(&endpoint, server, &token).await {
                Ok(credentials) => {
                    directory.save_credentials(&credentials)?;
                    endpoint.close().await;
                    return Ok(credentials);
                }
                Err(error) => servers.after(server, error)?,
            },
            Err(error) => return Err(error.into()),
        };
        waiting.on("the registration server", &failed).await;
    }
}

/// The servers by turns.
#[derive(Default)]
struct Servers {
    /// Those that could not help in this round. One that is cut off from the control group answers
    /// for as long as it runs, and must not keep the node from the others.
    passed: Vec<SocketAddr>,
}

impl Servers {
    /// Returns the address of a server that answers and was not asked in this round, or else the
    /// first one.
    async fn answering(
        &mut self,
        args: &Args,
        endpoint: &Endpoint,
    ) -> Result<SocketAddr, ProcessError> {
        let addresses = resolve(&args.server).await?;
        let left = self.left(&addresses);
        // A list that resolves is not empty.
        Ok(answering_first(endpoint, &left).await[0])
    }

    /// Returns the addresses that remain in this round; all of them in the next one.
    fn left(&mut self, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
        let is_left = |address: &&SocketAddr| !self.passed.contains(address);
        let left: Vec<SocketAddr> = addresses.iter().filter(is_left).copied().collect();
        if left.is_empty() {
            self.passed.clear();
            return addresses.to_vec();
        }
        left
    }

    /// Returns why the node has to try again, or the error if that is of no use.
    fn after(&mut self, server: SocketAddr, error: JoinError) -> Result<String, JoinError> {
        match error {
            JoinError::Refused(JoinRefusal::Waiting(_) | JoinRefusal::Busy)
            | JoinError::Call(..) => {
                self.passed.push(server);
                Ok(error.to_string())
            }
            // None of those that are left may live, so the next round begins.
            JoinError::Connect(_) => {
                self.passed.clear();
                Ok(error.to_string())
            }
            error => Err(error),
        }
    }
}

/// Finds the token to join with. Reading its file may never end, which must not block other tasks.
async fn token_for(
    args: &Args,
    server: SocketAddr,
) -> Result<Result<Token, TokenError>, ProcessError> {
    let file = args.token_file.clone();
    let find = move || find_token(server, Role::Node, file.as_deref());
    Ok(platform::run_blocking(find).await?)
}

/// Gets a new certificate for a node that was away for longer than its last certificate was valid.
pub(crate) async fn certify_again(
    args: &Args,
    directory: &DataDir,
    expired: Credentials,
) -> Result<Credentials, ProcessError> {
    let life = expired.life()?;
    warn!(
        "the certificate of this node is not valid now: {}; asking the server for a new one",
        life.at_odds_with(platform::wall_clock())
    );
    let endpoint = Endpoint::dial_only(None)?;
    let (mut waiting, mut servers) = (Waiting::default(), Servers::default());
    loop {
        let server = servers.answering(args, &endpoint).await?;
        let certified = match recertify(&endpoint, server, &expired).await {
            // The node was away for so long that its key is not enough: the operator has a token
            // for it.
            Err(JoinError::Refused(JoinRefusal::Lapsed)) => {
                let token = token_for(args, server).await?;
                let token = token.map_err(|token| ProcessError::Lapsed { token })?;
                readmit(&endpoint, server, &expired, &token).await
            }
            other => other,
        };
        match certified {
            Ok(credentials) => {
                directory.save_credentials(&credentials)?;
                endpoint.close().await;
                return Ok(credentials);
            }
            Err(error) => {
                let why = servers.after(server, error)?;
                waiting.on("the registration server", &why).await;
            }
        }
    }
}

/// Logs now and then what a node waits for.
#[derive(Default)]
pub(super) struct Waiting {
    told: Option<Instant>,
}

impl Waiting {
    /// Logs the reason for which the node waits, if it is time to, and pauses.
    pub(super) async fn on(&mut self, what: &str, why: &str) {
        if self.told.is_none_or(|told| told.elapsed() >= SERVER_REMIND) {
            warn!("waiting for {what}: {why}");
            self.told = Some(Instant::now());
        }
        tokio::time::sleep(SERVER_RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use dkv_wire::quic::ConnectError;
    use dkv_wire::rpc::RpcError;

    use super::*;

    #[test]
    fn each_server_has_its_turn_while_others_wait_for_the_control_group() {
        let all: Vec<SocketAddr> =
            (1..4).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let mut servers = Servers::default();
        let wait = || JoinError::Refused(JoinRefusal::Waiting("no majority".into()));
        assert_eq!(servers.left(&all), all);
        servers.after(all[0], wait()).unwrap();
        servers.after(all[1], JoinError::Refused(JoinRefusal::Busy)).unwrap();
        assert_eq!(servers.left(&all), all[2..]);
        servers.after(all[2], wait()).unwrap();
        assert_eq!(servers.left(&all), all, "the next round has all of them");
        servers.after(all[0], wait()).unwrap();
        // One that waits for the control group may answer too late.
        let late = RpcError::Timeout(Duration::from_secs(1));
        servers.after(all[1], JoinError::Call(all[1], late)).unwrap();
        assert_eq!(servers.left(&all), all[2..]);
        let dead = ConnectError::Unreachable { address: all[2], why: String::new() };
        servers.after(all[2], JoinError::Connect(dead)).unwrap();
        assert_eq!(servers.left(&all), all, "the one that waits is better than a dead one");
        let denied = servers.after(all[0], JoinError::Refused(JoinRefusal::Denied));
        assert!(matches!(denied, Err(JoinError::Refused(JoinRefusal::Denied))));
    }
}
