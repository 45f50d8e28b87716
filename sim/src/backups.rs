//! Backups of data directories, which a run restores later. Nothing else goes wrong in such a run.
//!
//! The backup is of the founder's directory while the founder was alone. Later all nodes are
//! stopped, and the founder is started first, on the backup. If the network accepted the old
//! directory, the founder would serve alone and lack everything that was written since. Then the
//! founder's own directory is restored, and all nodes start.

use dkv_base::durable;

use crate::cluster::{Cluster, Death};
use crate::disk::Disk;

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

/// Restores a backup.
pub(crate) fn restore(cluster: &mut Cluster, index: usize, backup: Backup) -> std::io::Result<()> {
    let Backup { name, disk } = backup;
    let path = cluster.path(&cluster.nodes[index].name);
    cluster.trace.line(format!("{} has its {name} directory", cluster.nodes[index].name));
    std::fs::remove_dir_all(&path)?;
    std::fs::rename(cluster.path(&name), path)?;
    let node = &mut cluster.nodes[index];
    node.disk = disk;
    (node.wanted, node.leaving, node.condemned) = (true, false, false);
    Ok(())
}

/// Kills the processes of all nodes. Their disks keep all data.
pub(crate) fn kill_all(cluster: &mut Cluster) {
    for index in 0..cluster.nodes.len() {
        cluster.kill_node(index, Death::Process);
    }
}
