//! The directory of a local network: its configuration, its files and its port.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use dkv_api::{Region, RegionError};
use dkv_base::durable;
use dkv_wire::network::Delays;
use dkv_wire::network::Settings;
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::error::OpenError;
use crate::options::Options;
use crate::regions;

const CONFIG: &str = "config.json";
/// Ports to try after the wanted one, before taking any free one.
const PORTS_AFTER: u16 = 16;

/// The directory of a local network, locked against a second use.
pub struct NetworkDir {
    path: PathBuf,
    /// Removes the directory when dropped.
    temporary: Option<TempDir>,
    _lock: File,
    /// Address that the server is to listen on.
    pub(crate) server: SocketAddr,
    /// Whether the directory held no network before.
    pub(crate) is_new: bool,
    /// Voters that each group should have.
    pub(crate) replication: u32,
    /// Shards of the network.
    pub(crate) shards: u32,
    /// Regions in which the nodes take turns.
    pub(crate) regions: Vec<Region>,
}

impl NetworkDir {
    /// Opens or creates the directory, and writes the server's configuration.
    ///
    /// # Errors
    /// The directory is taken, holds something else, or does not fit the options.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let (path, temporary) = create(options.dir.as_deref())?;
        let lock = lock(&path)?;
        let config = path.join(CONFIG);
        let found = read_config(&path, &config)?;
        let is_new = found.is_none();
        let mut fields = found.unwrap_or_default();
        let wanted = options.port.or_else(|| port_in(&fields)).unwrap_or(dkv_api::DEFAULT_PORT);
        let server = SocketAddr::new(options.listen, free_port(options.listen, wanted)?);
        let defaults = Settings::default();
        let settled = |fields: &Map<String, Value>, name: &str, default: u32| {
            fields.get(name).and_then(Value::as_u64).map_or(default, |number| number as u32)
        };
        // One shard for each region, so that each region can be the home of some keys.
        let usual = u32::try_from(options.regions.len()).unwrap_or(defaults.shards);
        let usual = usual.max(defaults.shards);
        let shards = settled(&fields, "shards", options.shards.unwrap_or(usual));
        let replication =
            settled(&fields, "replication", options.replication.unwrap_or(defaults.replication));
        for (name, asked, fixed) in
            [("shards", options.shards, shards), ("replication", options.replication, replication)]
        {
            if asked.is_some_and(|asked| asked != fixed) {
                let made = format!("--{name} {fixed}");
                return Err(OpenError::Different { path: path.clone(), made, omit: "the option" });
            }
        }
        let delays = delays_of(&mut fields, options, &path)?;
        let names = delays.between.iter().map(|name| name.parse());
        let regions: Vec<Region> = names.collect::<Result<_, RegionError>>()?;
        let settings = Settings { shards, replication, delays, ..defaults };
        settings.check()?;
        fields.insert("listen".into(), server.to_string().into());
        fields.entry("data_dir").or_insert_with(|| "server".into());
        fields.insert("shards".into(), shards.into());
        fields.insert("replication".into(), replication.into());
        if let Some(bytes) = options.log_bytes_max {
            fields.insert("log_bytes_max".into(), bytes.into());
        }
        let text = serde_json::to_vec_pretty(&fields).unwrap_or_default();
        durable::write(&config, &text)
            .map_err(OpenError::system(format!("write {}", config.display())))?;
        Ok(Self { path, temporary, _lock: lock, server, is_new, replication, shards, regions })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// `DKV_HOME` of the children and of this network's clients.
    pub fn home(&self) -> PathBuf {
        self.path.join("home")
    }

    /// The log of a process.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.log"))
    }

    /// The data directory of a process.
    pub fn data(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Number of nodes that this directory already has.
    pub(crate) fn nodes_before(&self) -> u16 {
        // One that cannot be looked at is there.
        let is_there = |number: &u16| self.data(&node_name(*number)).try_exists().unwrap_or(true);
        (1..u16::MAX).take_while(is_there).last().unwrap_or(0)
    }
}

/// Creates the directory, or a temporary one. Returns its path.
fn create(dir: Option<&Path>) -> Result<(PathBuf, Option<TempDir>), OpenError> {
    match dir {
        Some(path) => {
            let created = durable::create_dir(path).and_then(|()| path.canonicalize());
            let refused = OpenError::system(format!("create the directory {}", path.display()));
            Ok((created.map_err(refused)?, None))
        }
        None => {
            let directory = tempfile::Builder::new().prefix("dkv-local-").tempdir();
            let refused = OpenError::system("create a temporary directory".to_owned());
            let directory = directory.map_err(refused)?;
            Ok((directory.path().to_owned(), Some(directory)))
        }
    }
}

/// Locks the directory against a second use.
fn lock(path: &Path) -> Result<File, OpenError> {
    durable::lock_dir(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => OpenError::Running(path.to_owned()),
        _ => OpenError::system(format!("lock {}", path.display()))(error),
    })
}

/// Reads the configuration of the server; `None` if the directory has no network yet.
fn read_config(path: &Path, config: &Path) -> Result<Option<Map<String, Value>>, OpenError> {
    let found =
        durable::read(config).map_err(OpenError::system(format!("read {}", config.display())))?;
    match found {
        Some(content) => serde_json::from_slice(&content)
            .map(Some)
            .map_err(|source| OpenError::Config { path: config.to_owned(), source }),
        // A new directory contains only its lock.
        None => {
            let listed = fs::read_dir(path).map(|entries| entries.count());
            match listed.map_err(OpenError::system(format!("list {}", path.display())))? {
                0..=1 => Ok(None),
                _ => Err(OpenError::NotANetwork(path.to_owned())),
            }
        }
    }
}

/// Returns the name of the node of that number.
pub fn node_name(number: u16) -> String {
    format!("n{number}")
}

/// Returns the delays of the network: those of the options, or those that an older network has.
fn delays_of(
    fields: &mut Map<String, Value>,
    options: &Options,
    path: &Path,
) -> Result<Delays, OpenError> {
    let asked = regions::delays(&options.regions, options.delays.as_deref(), options.delays_vary)?;
    let mut field = |name: &str, asked: Value| fields.entry(name).or_insert(asked).clone();
    let read = |source| OpenError::Config { path: path.join(CONFIG), source };
    let before = Delays {
        between: serde_json::from_value(field("delays_between", asked.between.clone().into()))
            .map_err(read)?,
        average_ms: serde_json::from_value(field("delays_ms", asked.average_ms.clone().into()))
            .map_err(read)?,
        vary: serde_json::from_value(field("delays_vary", asked.vary.into())).map_err(read)?,
    };
    if !asked.is_empty() && asked != before {
        return Err(OpenError::Different {
            path: path.to_owned(),
            made: "other regions or delays".to_owned(),
            omit: "--regions, --delays and --delays-vary",
        });
    }
    Ok(before)
}

fn port_in(fields: &Map<String, Value>) -> Option<u16> {
    let listen: SocketAddr = fields.get("listen")?.as_str()?.parse().ok()?;
    Some(listen.port()).filter(|port| *port != 0)
}

/// Returns the wanted port, or one near it, or any free one.
fn free_port(ip: IpAddr, wanted: u16) -> Result<u16, OpenError> {
    let bound = |port| UdpSocket::bind((ip, port)).and_then(|socket| socket.local_addr());
    let near = wanted..=wanted.saturating_add(PORTS_AFTER);
    for port in near.chain([0]) {
        match bound(port) {
            Ok(address) => return Ok(address.port()),
            Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {
                return Err(OpenError::NotOurAddress(ip));
            }
            Err(_) => {}
        }
    }
    Err(OpenError::NoPort(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_any_port() -> Options {
        Options { port: Some(0), ..Options::default() }
    }

    fn kept_in(dir: &Path) -> Options {
        Options { dir: Some(dir.to_owned()), ..Options::default() }
    }

    #[test]
    fn another_port_is_used_if_the_wanted_one_is_taken() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let dir = NetworkDir::open(&Options { port: Some(port), ..Options::default() }).unwrap();
        assert_ne!(dir.server.port(), port);
        assert!(dir.is_new && dir.is_temporary());
        assert!(
            NetworkDir::open(&Options { listen: [192, 0, 2, 1].into(), ..Options::default() })
                .is_err()
        );
    }

    #[test]
    fn a_kept_directory_resumes_its_network() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("network");
        let first = NetworkDir::open(&Options { shards: Some(2), port: Some(0), ..kept_in(&path) })
            .unwrap();
        assert!(first.is_new && first.nodes_before() == 0);
        assert!(matches!(NetworkDir::open(&kept_in(&path)), Err(OpenError::Running(_))));
        let port = first.server.port();
        fs::create_dir(first.data("n1")).unwrap();
        fs::create_dir(first.data("n2")).unwrap();
        drop(first);
        let second = NetworkDir::open(&kept_in(&path)).unwrap();
        assert_eq!((second.is_new, second.shards, second.nodes_before()), (false, 2, 2));
        assert_eq!(second.server.port(), port);
        drop(second);
        let other = NetworkDir::open(&Options { shards: Some(3), ..kept_in(&path) });
        assert!(other.err().unwrap().to_string().contains("--shards 2, which cannot be changed"));
    }

    #[test]
    fn a_directory_with_other_files_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("thesis.tex"), "x").unwrap();
        let refused = NetworkDir::open(&kept_in(directory.path()));
        assert!(matches!(refused, Err(OpenError::NotANetwork(_))));
    }

    #[test]
    fn a_temporary_directory_is_removed_at_the_end() {
        let dir = NetworkDir::open(&on_any_port()).unwrap();
        let path = dir.path().to_owned();
        assert!(path.is_dir());
        drop(dir);
        assert!(!path.exists());
    }
}
