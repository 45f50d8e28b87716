//! Data directories that are put back as they were: nothing else goes wrong in such a run.
//!
//! The founder's directory is kept as it was while it was alone. Later all nodes are stopped, and
//! the founder is started first, on the copy: if it were believed, it would serve alone, and find
//! nothing that was written since. Then its own directory comes back, and all the others.

use dkv_base::durable;

use crate::cluster::{Cluster, Death};
use crate::disk::Disk;

/// A node's directory at some moment: its small files, and its disk.
pub(crate) struct Kept {
    name: String,
    disk: Disk,
}

/// Keeps what a node has now.
pub(crate) fn keep(cluster: &Cluster, index: usize, name: &str) -> std::io::Result<Kept> {
    let from = cluster.path(&cluster.nodes[index].name);
    durable::copy_dir(&from, &cluster.path(name))?;
    Ok(Kept { name: name.to_owned(), disk: cluster.nodes[index].disk.copy() })
}

/// Puts back what a node had.
pub(crate) fn put_back(cluster: &mut Cluster, index: usize, kept: Kept) -> std::io::Result<()> {
    let Kept { name, disk } = kept;
    let path = cluster.path(&cluster.nodes[index].name);
    cluster.trace.line(format!("{} has its {name} directory", cluster.nodes[index].name));
    std::fs::remove_dir_all(&path)?;
    std::fs::rename(cluster.path(&name), path)?;
    let node = &mut cluster.nodes[index];
    node.disk = disk;
    (node.wanted, node.leaving, node.condemned) = (true, false, false);
    Ok(())
}

/// Kills the processes of all nodes, which leaves their disks as they are.
pub(crate) fn kill_all(cluster: &mut Cluster) {
    for index in 0..cluster.nodes.len() {
        cluster.kill_node(index, Death::Process);
    }
}
