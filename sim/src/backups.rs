//! Backups of data directories, which a run restores later.
//!
//! In a run with `--old-copy` nothing else goes wrong. The backup is of the founder's directory
//! while the founder was alone. Later all nodes are stopped, and the founder is started first, on
//! the backup. If the network accepted the old directory, the founder would serve alone and lack
//! everything that was written since. Then the founder's own directory is restored, and all nodes
//! start.
//!
//! Beside other faults, [`crate::faults`] puts copies back and clones nodes.

use dkv_base::durable;

use crate::cluster::{Cluster, Death};
use crate::disk::Disk;
use crate::random::Random;

/// A node's data directory at some moment: its small files, and its disk.
pub(crate) struct Backup {
    name: String,
    disk: Disk,
}

/// Backs a node's data directory up under a name.
pub(crate) fn take(cluster: &Cluster, index: usize, name: &str) -> std::io::Result<Backup> {
    let from = cluster.path(&cluster.nodes[index].name);
    durable::copy_dir(&from, &cluster.path(name))?;
    Ok(Backup { name: name.to_owned(), disk: cluster.nodes[index].disk.copy() })
}

/// Backs up the data directory of a running node, as its disk would be after a crash at this
/// moment: with `power`, after a loss of power.
pub(crate) fn take_after_crash(
    cluster: &Cluster,
    index: usize,
    name: &str,
    power: Option<u64>,
    random: Random,
) -> std::io::Result<Backup> {
    let backup = take(cluster, index, name)?;
    let disk = cluster.nodes[index].disk.copy_after_crash(power, random);
    Ok(Backup { disk, ..backup })
}

/// Starts a second process of a node on a backup of its directory.
pub(crate) fn start_clone(cluster: &mut Cluster, index: usize, backup: Backup) {
    let path = cluster.path(&backup.name);
    cluster.start_clone(index, path, backup.disk);
}

/// Forgets a backup.
pub(crate) fn drop_backup(cluster: &Cluster, name: &str) -> std::io::Result<()> {
    let path = cluster.path(name);
    if path.exists() { std::fs::remove_dir_all(path) } else { Ok(()) }
}

/// Exchanges the directory of a node, which is down, for a backup.
pub(crate) fn put_back(cluster: &mut Cluster, index: usize, backup: Backup) -> std::io::Result<()> {
    let Backup { name, disk } = backup;
    let path = cluster.path(&cluster.nodes[index].name);
    cluster.trace.line(format!("{} has its {name} directory", cluster.nodes[index].name));
    std::fs::remove_dir_all(&path)?;
    std::fs::rename(cluster.path(&name), path)?;
    cluster.nodes[index].disk = disk;
    Ok(())
}

/// Restores a backup of a node that is to run again.
pub(crate) fn restore(cluster: &mut Cluster, index: usize, backup: Backup) -> std::io::Result<()> {
    put_back(cluster, index, backup)?;
    let node = &mut cluster.nodes[index];
    (node.wanted, node.leaving, node.condemned) = (true, false, false);
    Ok(())
}

/// Kills the processes of all nodes. Their disks keep all data.
pub(crate) fn kill_all(cluster: &mut Cluster) {
    for index in 0..cluster.nodes.len() {
        cluster.kill_node(index, Death::Process);
    }
}
