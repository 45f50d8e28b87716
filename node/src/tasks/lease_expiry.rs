//! Ends what has ended in a shard that this node leads: leases, and keys with an expiry.
//!
//! The primary proposes it, and the log does it. A timer is armed for the earliest end; a shard
//! without leases and expiries costs nothing.
//!
//! A lease that could not be kept alive must not pay for it. A primary that was paused, or that no
//! quorum answered, gives all leases their full time again, as a new primary does.

use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::Term;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use crate::node::Node;
use crate::replica::{Replica, leading};

/// Delay of this task, or of a quorum, after which leases may have missed a keep-alive.
const STALL: Duration = Duration::from_secs(1);
/// Time before another attempt when a proposal failed, or when keys could not be deleted yet.
const RETRY: Duration = Duration::from_millis(100);

/// Runs for as long as the replica is open.
pub(crate) async fn run(node: Arc<Node>, group: Arc<Replica>) {
    if !group.id().is_shard() {
        return;
    }
    let mut news = group.state_machine().lease_news();
    let mut metrics = group.metrics();
    loop {
        while !group.state_machine().has_leases() {
            if news.changed().await.is_err() {
                return;
            }
        }
        if metrics.wait_for(|metrics| leading(metrics).is_some()).await.is_err() {
            return;
        }
        if let Some(term) = group.leading() {
            lead(&node, &group, term).await;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Ends what ends while this replica leads in a term and there is anything that can end.
async fn lead(node: &Node, group: &Replica, term: Term) {
    let state_machine = group.state_machine();
    let mut news = state_machine.lease_news();
    // Whether leases may have missed a keep-alive.
    let mut stalled = false;
    while group.leading() == Some(term) {
        let Some(at) = state_machine.next_end(term) else { return };
        let now = Instant::now();
        if at > now {
            let mut metrics = group.metrics();
            tokio::select! {
                _ = metrics.wait_for(|metrics| leading(metrics) != Some(term)) => return,
                changed = news.changed() => if changed.is_err() { return },
                () = sleep_until(at) => stalled |= at.elapsed() > STALL,
            }
            continue;
        }
        if may_not_propose(node) {
            tokio::time::sleep(RETRY).await;
            continue;
        }
        // Nothing ends on the word of a primary that may have been deposed, or that nobody could
        // ask to keep a lease alive.
        let confirmed = group.confirm_leadership().await;
        stalled |= confirmed.is_err() || now.elapsed() > STALL;
        match confirmed {
            Ok(confirmed) if confirmed == term => {}
            Ok(_) => return,
            Err(error) => {
                debug!(group = %group.id(), %error, "nothing ends without a quorum");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        if std::mem::take(&mut stalled) {
            info!(group = %group.id(), "leases have their full time again after a pause");
            state_machine.keep_all_alive(term);
        }
        stalled = end(group, term).await > STALL;
    }
}

/// Proposes one entry of ends, and returns how long that took.
async fn end(group: &Replica, term: Term) -> Duration {
    let begun = Instant::now();
    let ends = group.state_machine().ends(term);
    if ends.commands.is_empty() {
        return Duration::ZERO;
    }
    let ended = group.expire(&ends.commands).await;
    group.state_machine().ended(term, &ends);
    let took = begun.elapsed();
    match ended {
        Ok(true) => {}
        // Keys that cannot be deleted at present.
        Ok(false) => tokio::time::sleep(RETRY).await,
        Err(error) => {
            debug!(group = %group.id(), %error, "the end of leases or keys is proposed again");
            tokio::time::sleep(RETRY).await;
        }
    }
    took
}

/// Returns whether the node's proposals would do harm now: its data directory may be a copy, or
/// there is no room for entries.
fn may_not_propose(node: &Node) -> bool {
    let log_is_full =
        || node.store().wal().stats().bytes_on_disk >= node.settings().log_bytes_max / 8 * 7;
    node.incarnations().held().is_some() || node.store().disk_full() || log_is_full()
}
