//! Prepares the environment that a fault needs: nodes behind relays, on small disks, or with clocks
//! of their own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use dkv_local::child::ChildSpec;
use dkv_local::network::LaunchHook;
use dkv_local::node_name;
use nix::unistd::geteuid;
use tempfile::TempDir;
use tokio::process::Command;

use crate::error::Obstacle;
use crate::fault::Fault;
use crate::relay::Relays;

/// Size of a small disk: a node keeps 128 MiB free, and its log takes 16 MiB.
const DISK: &str = "size=260m";
/// Paths at which libfaketime may be installed.
const FAKETIME: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
];

/// The environment of the nodes of a drill.
#[derive(Default)]
pub(crate) struct Environment {
    /// Relays in front of all nodes.
    pub(crate) relays: Option<Relays>,
    clocks: Option<TempDir>,
    small_disks: bool,
}

impl Environment {
    /// Prepares the environment for a fault.
    ///
    /// # Errors
    /// This machine lacks something.
    pub(crate) async fn prepare(fault: Fault, nodes: u16) -> Result<Self, Obstacle> {
        let mut environment = Self::default();
        match fault {
            Fault::Partition => {
                let names: Vec<String> = (1..=nodes).map(node_name).collect();
                let relays = Relays::start(&names).await;
                environment.relays = Some(relays.map_err(Obstacle::Socket)?);
            }
            Fault::DiskFull => {
                try_small_disk().await?;
                environment.small_disks = true;
            }
            Fault::ClockJump => {
                library().ok_or(Obstacle::NoFaketime)?;
                let clocks = tempfile::Builder::new().prefix("dkv-clocks-").tempdir();
                let refused = Obstacle::file("cannot create a temporary directory".to_owned());
                environment.clocks = Some(clocks.map_err(refused)?);
                (1..=nodes).try_for_each(|number| environment.set_clock(&node_name(number), 0))?;
            }
            _ => {}
        }
        Ok(environment)
    }

    /// Returns how nodes are to be started; `None` if in the usual way.
    pub(crate) fn launch_hook(&self, place: &Path) -> Option<LaunchHook> {
        if let Some(relays) = &self.relays {
            let addresses = relays.addresses();
            return Some(Box::new(move |name, spec| {
                if let Some((node, relay)) = addresses.get(name) {
                    spec.arguments.extend(["--listen".into(), node.to_string().into()]);
                    spec.arguments.extend(["--advertise".into(), relay.to_string().into()]);
                }
            }));
        }
        if self.small_disks {
            let place = place.to_owned();
            return Some(Box::new(move |name, spec| on_small_disk(&place.join(name), spec)));
        }
        let clocks = self.clocks.as_ref()?.path().to_owned();
        Some(Box::new(move |name, spec| {
            let variables: [(&str, OsString); 5] = [
                ("LD_PRELOAD", library().unwrap_or_default().into()),
                ("FAKETIME_TIMESTAMP_FILE", clocks.join(name).into()),
                ("FAKETIME_NO_CACHE", "1".into()),
                // Jumping clocks must not change the length of a second.
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
                ("DONT_FAKE_MONOTONIC", "1".into()),
            ];
            spec.variables.extend(variables.map(|(name, value)| (name.into(), value)));
        }))
    }

    /// Sets a node's clock ahead by that many minutes.
    pub(crate) fn set_clock(&self, name: &str, minutes: i64) -> Result<(), Obstacle> {
        let Some(clocks) = &self.clocks else { return Ok(()) };
        let (file, new) = (clocks.path().join(name), clocks.path().join("new"));
        // Replaced atomically, because a node may read it at any moment.
        std::fs::write(&new, format!("{:+}\n", minutes * 60))
            .and_then(|()| std::fs::rename(&new, &file))
            .map_err(Obstacle::file(file.display().to_string()))
    }
}

/// Starts a node with a small disk in place of its directory. The disk is visible only in the
/// node's mount namespace, and disappears with it.
fn on_small_disk(directory: &Path, spec: &mut ChildSpec) {
    let script = format!(
        "mkdir -p \"$0\" && chmod 700 \"$0\" && mount -t tmpfs -o {DISK},mode=700 tmpfs \"$0\" && \
         exec \"$@\""
    );
    let mut arguments: Vec<OsString> = vec!["-m".into()];
    if !geteuid().is_root() {
        arguments.push("-r".into());
    }
    arguments.extend(["sh".into(), "-c".into(), script.into(), directory.into()]);
    arguments.push(std::mem::replace(&mut spec.program, PathBuf::from("unshare")).into());
    arguments.append(&mut spec.arguments);
    spec.arguments = arguments;
}

/// Mounts a small disk for a moment, so that a network that does not come up on such disks is not
/// taken for a machine that has none.
async fn try_small_disk() -> Result<(), Obstacle> {
    let place = tempfile::Builder::new().prefix("dkv-disk-").tempdir();
    let place = place.map_err(Obstacle::file("cannot create a temporary directory".to_owned()))?;
    let disk = place.path();
    let mut spec = ChildSpec {
        program: "true".into(),
        arguments: Vec::new(),
        home: disk.to_owned(),
        log: disk.to_owned(),
        variables: Vec::new(),
    };
    on_small_disk(disk, &mut spec);
    let tried = Command::new(&spec.program).args(&spec.arguments).kill_on_drop(true).output().await;
    match tried {
        Ok(tried) if tried.status.success() => Ok(()),
        Ok(tried) => {
            let said = String::from_utf8_lossy(&tried.stderr).trim().to_owned();
            Err(Obstacle::SmallDisks(said))
        }
        Err(error) => Err(Obstacle::SmallDisks(format!("unshare: {error}"))),
    }
}

fn library() -> Option<&'static str> {
    FAKETIME.into_iter().find(|path| Path::new(path).exists())
}
