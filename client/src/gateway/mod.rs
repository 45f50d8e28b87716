//! `dkv gateway`: HTTP in front of a network, in a process without data; or, without a network, an
//! instance of `/kvs` that the environment describes.

mod instance;

use std::net::SocketAddr;
use std::process::ExitCode;

use dkv_api::Role;
use dkv_base::durable;
use dkv_base::logging::{self, Targets};
use dkv_base::signals::ignore_strays;
use dkv_gateway::{Access, App, ListenError, Listener, Options};

use self::instance::Instance;
use crate::cli::{Addresses, Connect, Gateway, usual};
use crate::dispatch::{connection, ended, not_connected};
use crate::problem::Problem;
use crate::screen::Screen;
use crate::signals::Signals;
use crate::store::{Session, Store};

/// Where HTTP is served unless something else is said.
const HTTP_DEFAULT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

/// Serves HTTP until it is told to stop.
pub(crate) async fn run(
    mut args: Gateway,
    before: Option<Addresses>,
    outer: Connect,
    screen: &mut Screen,
) -> ExitCode {
    args.connect = args.connect.clone().or(outer);
    match serve(args, before, screen).await {
        Ok(status) => status,
        Err(problem) => {
            screen.error(&problem);
            ExitCode::FAILURE
        }
    }
}

async fn serve(
    args: Gateway,
    before: Option<Addresses>,
    screen: &mut Screen,
) -> Result<ExitCode, String> {
    if args.connect.level.is_some() {
        let why = "gateway does not take --level: each read says ?consistency=eventual or not";
        return Ok(ended(screen, &Problem::usage(why)));
    }
    if args.server.is_some() && before.is_some() {
        let why = "there are two addresses of the server: leave out the one before gateway";
        return Ok(ended(screen, &Problem::usage(why)));
    }
    let _log = logging::start("warn", Targets::Shown).map_err(|error| error.to_string())?;
    durable::keep_files_private();
    let mut signals =
        Signals::take().map_err(|error| format!("cannot listen for signals: {error}"))?;
    ignore_strays().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let server = match args.server.or(before) {
        Some(server) => server,
        None => {
            let instance = match args.http.http {
                None => match Instance::from(|name| std::env::var(name).ok()) {
                    Ok(instance) => instance,
                    Err(why) => return Ok(ended(screen, &Problem::usage(why))),
                },
                Some(_) => None,
            };
            if let Some(instance) = instance {
                let option = args.http.option_given();
                let option = option.or(args.dir.as_ref().and(instance.main).map(|_| "--dir"));
                if let Some(option) = option {
                    let why =
                        format!("{option} is not for an instance that IP, PORT or MAINIP place");
                    return Ok(ended(screen, &Problem::usage(why)));
                }
                return instance
                    .serve(args.dir, args.http.host, args.connect, &mut signals, screen)
                    .await;
            }
            match usual() {
                Ok(server) => server,
                Err(why) => {
                    let why = format!("{why}, or IP and PORT for a store of the gateway's own");
                    return Ok(ended(screen, &Problem::usage(why)));
                }
            }
        }
    };
    if args.dir.is_some() {
        let why = "--dir is for a store of its own; leave it out, or the address of the server";
        return Ok(ended(screen, &Problem::usage(why)));
    }
    let address = args.http.http.unwrap_or(HTTP_DEFAULT);
    // First, so that what is wrong with it is said at once.
    let listener = match Listener::bind(address, &args.http).await {
        Ok(listener) => listener,
        Err(error @ ListenError::Plain(_)) => {
            return Ok(ended(screen, &Problem::usage(error.to_string())));
        }
        Err(error) => return Err(error.to_string()),
    };
    let placed = ["IP", "PORT", "MAINIP"].into_iter().filter(|name| {
        std::env::var_os(name).is_some_and(|value| !value.to_string_lossy().trim().is_empty())
    });
    let placed: Vec<&str> = placed.collect();
    if !placed.is_empty() {
        screen.note(&format!(
            "not using {} of the environment: --http or the server comes first",
            placed.join(", ")
        ));
    }
    let connection = connection(server, args.connect, Role::Client);
    let session = match Session::connect(&connection).await {
        Ok(session) => session,
        Err(error) => return Ok(not_connected(screen, &error)),
    };
    let access = dkv_gateway::access(&session.client, &args.http, listener.address())
        .map_err(|error| error.to_string())?;
    let open = !matches!(access, Access::Tokens(_));
    let network = session.address().to_owned();
    let app = App::new(session.client.clone(), Options { network, access, extra_metrics: None });
    if open && !listener.address().ip().is_loopback() {
        screen.note(&format!("anybody who reaches {} may read and write", listener.address()));
    }
    ready(&listener, screen)?;
    listener.serve(app, async { _ = signals.next_of_service().await }).await;
    session.client.close().await;
    Ok(ExitCode::SUCCESS)
}

/// Says where HTTP is served, for people and for programs.
fn ready(listener: &Listener, screen: &mut Screen) -> Result<(), String> {
    screen
        .line(&format!("ready {}", listener.address()))
        .map_err(|error| format!("cannot write to standard output: {error}"))
}
