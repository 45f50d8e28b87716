//! Instances of `/kvs` that environment variables configure: `IP` and `PORT` are the address, and
//! `MAINIP` is the main instance, if that is another one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use dkv_api::Role;
use dkv_console::Console;
use dkv_console::problem::Problem;
use dkv_console::signals::Signals;
use dkv_gateway::{Access, App, Args, Listener, Options};
use dkv_local::{LocalNetwork, NetworkDir, Options as LocalOptions};

use super::ready;
use crate::cli::Connect;

/// Port if `PORT` is not set.
const PORT_DEFAULT: u16 = 8080;

/// A variable is malformed. The user corrects it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum VariableError {
    #[error("IP must be an IP address")]
    Ip,
    #[error("PORT must be a number from 0 to 65535")]
    Port,
    #[error("MAINIP must be IP:PORT")]
    MainIp,
}

/// The configuration of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instance {
    /// Address on which it listens.
    pub(super) address: SocketAddr,
    /// The main instance, to which it forwards; `None` if it is the main one.
    pub(super) main: Option<SocketAddr>,
}

impl Instance {
    /// Reads the environment. Returns `None` if no variable is set.
    ///
    /// # Errors
    /// A mistake in a variable.
    pub(super) fn from(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, VariableError> {
        let set = |name: &str| variable(name).filter(|text| !text.trim().is_empty());
        let (ip, port, main) = (set("IP"), set("PORT"), set("MAINIP"));
        if ip.is_none() && port.is_none() && main.is_none() {
            return Ok(None);
        }
        let ip = match ip {
            Some(text) => text.trim().parse().map_err(|_| VariableError::Ip)?,
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let port = match port {
            Some(text) => text.trim().parse().map_err(|_| VariableError::Port)?,
            None => PORT_DEFAULT,
        };
        let address = SocketAddr::new(ip, port);
        let main: Option<SocketAddr> = match main {
            Some(text) => Some(text.trim().parse().map_err(|_| VariableError::MainIp)?),
            None => None,
        };
        Ok(Some(Self { address, main: main.filter(|main| *main != address) }))
    }

    /// Serves until a signal comes. The main instance has its own network, in a directory or,
    /// without one, in a temporary directory.
    pub(super) async fn serve(
        self,
        dir: Option<PathBuf>,
        host: Vec<dkv_gateway::HostName>,
        connect: Connect,
        signals: &mut Signals,
        console: &mut Console,
    ) -> Result<ExitCode, Problem> {
        // IP sets the address; the interface of /kvs has no other access control.
        let open = Args { without_authentication: true, host, ..Args::default() };
        let listener = Listener::bind(self.address, &open).await;
        let listener = listener.map_err(|error| Problem::failed(error.to_string()))?;
        if !self.address.ip().is_loopback() {
            console.note(&format!("anyone who can connect to {} may read and write", self.address));
        }
        if let Some(main) = self.main {
            ready(listener.address(), console)?;
            let app = dkv_gateway::forwarder(main);
            listener.serve(app, async { _ = signals.next_of_service().await }).await;
            return Ok(ExitCode::SUCCESS);
        }
        let local = LocalOptions {
            dir,
            request_timeout: connect.timeout,
            client_region: connect.region,
            ..LocalOptions::temporary(1)
        };
        let network = LocalNetwork::new(NetworkDir::open(&local)?, &local)?;
        let served = on_network(&network, &local, listener, signals, console).await;
        network.stop(console).await;
        served
    }
}

async fn on_network(
    network: &LocalNetwork,
    local: &LocalOptions,
    listener: Listener,
    signals: &mut Signals,
    console: &mut Console,
) -> Result<ExitCode, Problem> {
    let server = tokio::select! {
        started = network.bring_up(local.start_timeout, console) => started?.0,
        ending = signals.next_of_service() => return Ok(ExitCode::from(ending.status())),
    };
    let client =
        network.connect(Role::Client).await.map_err(|error| Problem::failed(error.to_string()))?;
    ready(listener.address(), console)?;
    let options =
        Options { network: server.to_string(), access: Access::Anybody, extra_metrics: None };
    let app = App::new(client.clone(), options);
    listener.serve(app, async { _ = signals.next_of_service().await }).await;
    client.close().await;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Option<(String, Option<String>)>, VariableError> {
        let variable = |name: &str| {
            set.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned())
        };
        let shown = |it: Instance| (it.address.to_string(), it.main.map(|main| main.to_string()));
        Instance::from(variable).map(|instance| instance.map(shown))
    }

    #[test]
    fn mainip_decides_the_role() {
        let main = |text: &str| Ok(Some((text.to_owned(), None)));
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("IP", "10.0.0.20"), ("PORT", "8080")]), main("10.0.0.20:8080"));
        assert_eq!(read(&[("IP", "10.0.0.20"), ("MAINIP", "")]), main("10.0.0.20:8080"));
        assert_eq!(read(&[("PORT", "9"), ("MAINIP", "127.0.0.1:9")]), main("127.0.0.1:9"));
        let forwards = read(&[
            ("IP", "10.0.0.21"),
            ("PORT", "8080"),
            ("ISMAIN", "False"),
            ("MAINIP", "10.0.0.20:8080"),
        ]);
        let (own, other) = ("10.0.0.21:8080".to_owned(), "10.0.0.20:8080".to_owned());
        assert_eq!(forwards, Ok(Some((own, Some(other)))));
        for wrong in [("IP", "here"), ("PORT", "70000"), ("MAINIP", "10.0.0.20")] {
            assert!(read(&[wrong]).is_err(), "{wrong:?}");
        }
    }
}
