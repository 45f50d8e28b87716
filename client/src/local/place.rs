//! The directory of a local network, and its port.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use dkv_api::{NetworkId, Region, RegionError};
use dkv_base::durable;
use dkv_wire::local;
use dkv_wire::network::Delays;
use dkv_wire::network::Settings;
use serde_json::{Map, Value};
use tempfile::TempDir;

use super::regions;
use crate::cli::Local;

const CONFIG: &str = "config.json";
/// In a directory of tokens: says that a local network left them, and which.
const MARK: &str = "local-network";
/// Ports that are tried after the wanted one, before any free one is taken.
const PORTS_AFTER: u16 = 16;

/// The directory.
pub(crate) struct Place {
    path: PathBuf,
    /// Removes the directory when it is dropped.
    temporary: Option<TempDir>,
    /// Nobody else uses it meanwhile.
    _lock: File,
    /// Where the server is to listen.
    pub(super) server: SocketAddr,
    /// Whether there was no network in it before.
    pub(super) is_new: bool,
    /// Voters that each group should have.
    pub(super) replication: u32,
    /// Shards of the network.
    pub(super) shards: u32,
    /// Regions that the nodes take turns in.
    pub(super) regions: Vec<Region>,
}

impl Place {
    /// Opens or makes the directory, and writes the configuration of a new network.
    ///
    /// # Errors
    /// What is wrong and what to do, in one line.
    pub(crate) fn open(args: &Local) -> Result<Self, String> {
        let (path, temporary) = match &args.dir {
            Some(path) => {
                let tell = |error| format!("cannot make the directory {}: {error}", path.display());
                durable::create_dir(path).map_err(tell)?;
                (path.canonicalize().map_err(tell)?, None)
            }
            None => {
                let directory = tempfile::Builder::new().prefix("dkv-local-").tempdir();
                let directory = directory
                    .map_err(|error| format!("cannot make a temporary directory: {error}"))?;
                (directory.path().to_owned(), Some(directory))
            }
        };
        let lock = durable::lock_dir(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => format!(
                "another dkv local runs in {}; leave that one first, or name another directory",
                path.display()
            ),
            _ => format!("cannot lock {}: {error}", path.display()),
        })?;
        let config = path.join(CONFIG);
        let found = durable::read(&config)
            .map_err(|error| format!("cannot read {}: {error}", config.display()))?;
        let is_new = found.is_none();
        if is_new && fs::read_dir(&path).is_ok_and(|entries| entries.count() > 1) {
            return Err(format!(
                "{} holds something that is not a local network; name an empty directory",
                path.display()
            ));
        }
        let mut fields = match found {
            Some(content) => serde_json::from_slice::<Map<String, Value>>(&content)
                .map_err(|error| format!("{}: {error}", config.display()))?,
            None => Map::new(),
        };
        let wanted = args.port.or_else(|| port_in(&fields)).unwrap_or(dkv_api::DEFAULT_PORT);
        let server = SocketAddr::new(args.listen, free_port(args.listen, wanted)?);
        let defaults = Settings::default();
        let settled = |fields: &Map<String, Value>, name: &str, default: u32| {
            fields.get(name).and_then(Value::as_u64).map_or(default, |number| number as u32)
        };
        // Of several regions each has keys whose primary is there.
        let usual = u32::try_from(args.regions.len()).unwrap_or(defaults.shards);
        let usual = usual.max(defaults.shards);
        let shards = settled(&fields, "shards", args.shards.unwrap_or(usual));
        let replication =
            settled(&fields, "replication", args.replication.unwrap_or(defaults.replication));
        for (name, asked, fixed) in
            [("shards", args.shards, shards), ("replication", args.replication, replication)]
        {
            if asked.is_some_and(|asked| asked != fixed) {
                return Err(format!(
                    "the network in {} has --{name} {fixed} for good; leave the option out, or name \
                     another directory",
                    path.display()
                ));
            }
        }
        let delays = delays_of(&mut fields, args, &path)?;
        let names = delays.between.iter().map(|name| name.parse());
        let regions: Vec<Region> =
            names.collect::<Result<_, RegionError>>().map_err(|error| error.to_string())?;
        let settings = Settings { shards, replication, delays, ..defaults };
        settings.check().map_err(|error| error.to_string())?;
        fields.insert("listen".into(), server.to_string().into());
        fields.entry("data_dir").or_insert_with(|| "server".into());
        fields.insert("shards".into(), shards.into());
        fields.insert("replication".into(), replication.into());
        if let Some(bytes) = args.log_bytes_max {
            fields.insert("log_bytes_max".into(), bytes.into());
        }
        let text = serde_json::to_vec_pretty(&fields).unwrap_or_default();
        durable::write(&config, &text)
            .map_err(|error| format!("cannot write {}: {error}", config.display()))?;
        Ok(Self { path, temporary, _lock: lock, server, is_new, replication, shards, regions })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    pub(super) fn config(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// What the children and this process use in place of the user's own state.
    pub(super) fn home(&self) -> PathBuf {
        self.path.join("home")
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.log"))
    }

    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// How many nodes have been here.
    pub(super) fn nodes_before(&self) -> u16 {
        (1..).take_while(|number| self.data(&node_name(*number)).is_dir()).last().unwrap_or(0)
    }

    /// Leaves the tokens of the server where another terminal looks for them.
    pub(super) fn share(&self, server: SocketAddr) -> Shared {
        let shared = local::home().and_then(|home| {
            let directory = local::tokens_dir(&home, server.port());
            if directory.exists() && !directory.join(MARK).exists() {
                return None;
            }
            copy(&local::tokens_dir(&self.home(), server.port()), &directory, &self.path).ok()?;
            Some((home, directory))
        });
        Shared { shared, temporary: self.is_temporary(), network: None }
    }
}

fn copy(from: &Path, to: &Path, owner: &Path) -> std::io::Result<()> {
    durable::create_dir(to)?;
    // First the mark: what is there without it would be taken for somebody else's.
    durable::write(&to.join(MARK), owner.as_os_str().as_encoded_bytes())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if let Some(content) = durable::read(&entry.path())? {
            durable::write(&to.join(entry.file_name()), &content)?;
        }
    }
    Ok(())
}

/// The tokens in the user's own place; taken back when this is dropped.
pub(super) struct Shared {
    /// The user's home and the directory of tokens in it.
    shared: Option<(PathBuf, PathBuf)>,
    temporary: bool,
    /// The network, once it is known.
    pub(super) network: Option<NetworkId>,
}

impl Shared {
    /// Whether another terminal finds the tokens by itself.
    pub(super) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let Some((home, directory)) = &self.shared else { return };
        // What cannot be removed now is recognised by its mark the next time.
        let _ = fs::remove_dir_all(directory);
        if let (true, Some(network)) = (self.temporary, self.network) {
            // Credentials of a network that is no more.
            let _ = fs::remove_dir_all(home.join("credentials").join(network.to_string()));
        }
    }
}

/// What the node of that number is called.
pub(crate) fn node_name(number: u16) -> String {
    format!("n{number}")
}

/// The delays of the network: those that are asked for, or of one that was here before, its own.
fn delays_of(fields: &mut Map<String, Value>, args: &Local, path: &Path) -> Result<Delays, String> {
    let asked = regions::delays(&args.regions, args.delays.as_deref(), args.delays_vary)?;
    let mut field = |name: &str, asked: Value| fields.entry(name).or_insert(asked).clone();
    let read = |error: serde_json::Error| format!("{}: {error}", path.join(CONFIG).display());
    let before = Delays {
        between: serde_json::from_value(field("delays_between", asked.between.clone().into()))
            .map_err(read)?,
        average_ms: serde_json::from_value(field("delays_ms", asked.average_ms.clone().into()))
            .map_err(read)?,
        vary: serde_json::from_value(field("delays_vary", asked.vary.into())).map_err(read)?,
    };
    if !asked.is_empty() && asked != before {
        return Err(format!(
            "the network in {} has its regions and delays for good; leave --regions, --delays and \
             --delays-vary out, or name another directory",
            path.display()
        ));
    }
    Ok(before)
}

fn port_in(fields: &Map<String, Value>) -> Option<u16> {
    let listen: SocketAddr = fields.get("listen")?.as_str()?.parse().ok()?;
    Some(listen.port()).filter(|port| *port != 0)
}

/// The wanted port, or one near it, or any.
fn free_port(ip: IpAddr, wanted: u16) -> Result<u16, String> {
    let bound = |port| UdpSocket::bind((ip, port)).and_then(|socket| socket.local_addr());
    let near = wanted..=wanted.saturating_add(PORTS_AFTER);
    for port in near.chain([0]) {
        match bound(port) {
            Ok(address) => return Ok(address.port()),
            Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {
                return Err(format!("{ip} is no address of this machine; name one with --listen"));
            }
            Err(_) => {}
        }
    }
    Err(format!("no port of {ip} is free"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Word};

    fn local(line: &[&str]) -> Local {
        let cli = Cli::try_parse_from(["dkv", "local"].iter().chain(line)).unwrap();
        match cli.word {
            Some(Word::Local(local)) => local,
            _ => unreachable!(),
        }
    }

    #[test]
    fn a_taken_port_is_no_failure() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let place = Place::open(&local(&["--port", &port.to_string()])).unwrap();
        assert_ne!(place.server.port(), port);
        assert!(place.is_new && place.is_temporary());
        assert!(Place::open(&local(&["--listen", "192.0.2.1"])).is_err());
    }

    #[test]
    fn a_kept_directory_is_gone_on_with() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("network");
        let path = path.to_str().unwrap();
        let first = Place::open(&local(&["--dir", path, "--shards", "2", "--port", "0"])).unwrap();
        assert!(first.is_new && first.nodes_before() == 0);
        assert!(Place::open(&local(&["--dir", path])).err().unwrap().contains("another dkv local"));
        let port = first.server.port();
        fs::create_dir(first.data("n1")).unwrap();
        fs::create_dir(first.data("n2")).unwrap();
        drop(first);
        let second = Place::open(&local(&["--dir", path])).unwrap();
        assert_eq!((second.is_new, second.shards, second.nodes_before()), (false, 2, 2));
        assert_eq!(second.server.port(), port);
        drop(second);
        let other = Place::open(&local(&["--dir", path, "--shards", "3"]));
        assert!(other.err().unwrap().contains("--shards 2 for good"));
    }

    #[test]
    fn a_directory_of_something_else_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("thesis.tex"), "x").unwrap();
        let path = directory.path().to_str().unwrap();
        let refused = Place::open(&local(&["--dir", path]));
        assert!(refused.err().unwrap().contains("name an empty directory"));
    }

    #[test]
    fn a_temporary_directory_is_gone_at_the_end() {
        let place = Place::open(&local(&["--port", "0"])).unwrap();
        let path = place.path().to_owned();
        assert!(path.is_dir());
        drop(place);
        assert!(!path.exists());
    }
}
