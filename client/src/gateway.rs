//! `dkv gateway`: serves HTTP or etcd's interface in front of a network, in a process without data.
//! Without a network, it runs an instance of `/kvs` that environment variables describe.

mod instance;

use std::net::SocketAddr;
use std::process::ExitCode;

use dkv_api::{Client, ClientBuilder, Role};
use dkv_base::logging::{self, Targets};
use dkv_base::signals::ignore_strays;
use dkv_base::{audit, durable};
use dkv_gateway::{Access, App, ListenError, Listener, Options};

use self::instance::Instance;
use crate::api_problems::connect_problem;
use crate::cli::{Addresses, Connect, GatewayArgs, default_addresses};
use crate::etcd;
use crate::exit::ended;
use crate::store::{Connection, Session, Store};
use dkv_console::Console;
use dkv_console::problem::Problem;
use dkv_console::signals::Signals;

/// Default address of HTTP.
const HTTP_DEFAULT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

/// Serves HTTP until a signal stops it.
pub(crate) async fn run(
    mut args: GatewayArgs,
    before: Option<Addresses>,
    outer: Connect,
    console: &mut Console,
) -> ExitCode {
    args.connect = args.connect.clone().or(outer);
    match serve(args, before, console).await {
        Ok(status) => status,
        Err(problem) => ended(console, &problem),
    }
}

async fn serve(
    args: GatewayArgs,
    before: Option<Addresses>,
    console: &mut Console,
) -> Result<ExitCode, Problem> {
    if args.connect.level.is_some() {
        let why = "gateway does not take --level: each request sets its own with ?consistency=";
        return Err(Problem::usage(why));
    }
    if args.connect.typed(&["--keyspace"]).is_some() {
        let why = "gateway does not take --keyspace: each request sets its own with ?keyspace=";
        return Err(Problem::usage(why));
    }
    if args.server.is_some() && before.is_some() {
        let why = "the server has two addresses: omit the one before gateway";
        return Err(Problem::usage(why));
    }
    let log = logging::start("warn", Targets::Shown, args.log_format);
    let _log = log.map_err(|error| Problem::failed(error.to_string()))?;
    durable::keep_files_private();
    let options = args.audit.over(None).map_err(|error| Problem::usage(error.to_string()))?;
    let audit = audit::start(options.as_ref(), "gateway");
    let _audit = audit.map_err(|error| Problem::failed(error.to_string()))?;
    let deaf = |error| Problem::failed(format!("cannot listen for signals: {error}"));
    let mut signals = Signals::take().map_err(deaf)?;
    ignore_strays().map_err(deaf)?;
    let server = match args.server.or(before) {
        Some(server) => server,
        None => {
            let instance = match (args.http.http, args.etcd.etcd) {
                (None, None) => Instance::from(|name| std::env::var(name).ok())
                    .map_err(|error| Problem::usage(error.to_string()))?,
                _ => None,
            };
            if let Some(instance) = instance {
                let option = args.http.option_given();
                let option = option.or(args.dir.as_ref().and(instance.main).map(|_| "--dir"));
                if let Some(option) = option {
                    let why = format!(
                        "{option} does not apply to an instance that IP, PORT or MAINIP configure"
                    );
                    return Err(Problem::usage(why));
                }
                return instance
                    .serve(args.dir, args.http.host, args.connect, &mut signals, console)
                    .await;
            }
            default_addresses().map_err(|error| {
                let advice = "or set IP and PORT to give the gateway its own network";
                Problem::usage(format!("{error}, {advice}"))
            })?
        }
    };
    if args.dir.is_some() {
        let why = "--dir is for the gateway's own network; omit it, or the address of the server";
        return Err(Problem::usage(why));
    }
    // Bound first, so that a wrong address is reported at once.
    let etcd = etcd::bind(&args.etcd).await?;
    let address = match (args.http.http, args.etcd.etcd) {
        (None, Some(_)) => {
            if let Some(option) = args.http.option_given() {
                let why = format!("{option} configures HTTP, but none is served: add --http");
                return Err(Problem::usage(why));
            }
            None
        }
        (http, _) => Some(http.unwrap_or(HTTP_DEFAULT)),
    };
    let listener = match address {
        Some(address) => Some(bind(address, &args.http).await?),
        None => None,
    };
    let configured = ["IP", "PORT", "MAINIP"].into_iter().filter(|name| {
        std::env::var_os(name).is_some_and(|value| !value.to_string_lossy().trim().is_empty())
    });
    let configured: Vec<&str> = configured.collect();
    if !configured.is_empty() {
        console.note(&format!(
            "ignoring {} in the environment, because --http or a server address was given",
            configured.join(", ")
        ));
    }
    let connection = Connection::new(server, args.connect, Role::Client);
    let session = Session::connect(&connection).await.map_err(|error| connect_problem(&error))?;
    let mut etcd = match etcd {
        Some(listener) => {
            let (client, founder) = (session.client.clone(), founder(&connection));
            Some(etcd::serve(listener, &args.etcd, client, founder, console).await?)
        }
        None => None,
    };
    let (address, mut failed) = (etcd.as_ref().map(|etcd| etcd.address), None);
    let until_stopped = async {
        tokio::select! {
            _ = signals.next_of_service() => {}
            problem = etcd::ended(etcd.as_mut()) => failed = Some(problem),
        }
    };
    match (listener, address) {
        (Some(listener), _) => {
            let app = app(&session, &args.http, &listener, console)?;
            ready(listener.address(), console)?;
            listener.serve(app, until_stopped).await;
        }
        (None, Some(address)) => {
            ready(address, console)?;
            until_stopped.await;
        }
        (None, None) => drop(until_stopped),
    }
    if let Some(etcd) = etcd {
        etcd.stop().await;
    }
    session.client.close().await;
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// Binds the address of HTTP.
async fn bind(address: SocketAddr, args: &dkv_gateway::Args) -> Result<Listener, Problem> {
    match Listener::bind(address, args).await {
        Ok(listener) => Ok(listener),
        Err(error @ ListenError::Plain(_)) => Err(Problem::usage(error.to_string())),
        Err(error) => Err(Problem::failed(error.to_string())),
    }
}

/// Creates what HTTP serves.
fn app(
    session: &Session,
    args: &dkv_gateway::Args,
    listener: &Listener,
    console: &mut Console,
) -> Result<App, Problem> {
    let access = dkv_gateway::access(&session.client, args, listener.address())
        .map_err(|error| Problem::failed(error.to_string()))?;
    let open = !matches!(access, Access::Tokens(_));
    let network = session.address().to_owned();
    if open && !listener.address().ip().is_loopback() {
        console
            .note(&format!("anyone who can connect to {} may read and write", listener.address()));
    }
    Ok(App::new(session.client.clone(), Options { network, access, extra_metrics: None }))
}

/// Connects to the same network as an administrator, where this user may.
fn founder(connection: &Connection) -> ClientBuilder {
    let founder = Client::builder().servers(connection.servers.clone());
    match &connection.home {
        Some(home) => founder.home(home),
        None => founder,
    }
}

/// Prints the address of HTTP, or that of etcd's interface if that is all.
fn ready(address: SocketAddr, console: &mut Console) -> Result<(), Problem> {
    console
        .line(&format!("ready {address}"))
        .map_err(|error| Problem::failed(format!("cannot write to standard output: {error}")))
}
