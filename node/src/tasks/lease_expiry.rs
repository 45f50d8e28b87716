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
use dkv_base::mutants::{Mutant, planted};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info};

use crate::node::Node;
use crate::replica::{Replica, leading};

/// Delay of this task, or of a nearby quorum, after which leases may have missed a keep-alive.
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
        sleep(RETRY).await;
    }
}

/// Ends what ends while this replica leads in a term and there is anything that can end.
async fn lead(node: &Node, group: &Replica, term: Term) {
    let state_machine = group.state_machine();
    let mut news = state_machine.lease_news();
    // Whether no quorum confirmed this primary when it last asked.
    let mut is_alone = false;
    // Whether a quorum has taken the last proposal just now, which says as much as a round.
    let mut is_confirmed = false;
    while group.leading() == Some(term) {
        let Some(at) = state_machine.next_end(term) else { return };
        if planted(Mutant::EndLate) {
            sleep(Duration::from_secs(4)).await;
        }
        let (now, stall) = (Instant::now(), STALL.max(group.time_scale().round_trip() * 3));
        if at > now {
            is_confirmed = false;
            let mut metrics = group.metrics();
            tokio::select! {
                _ = metrics.wait_for(|metrics| leading(metrics) != Some(term)) => return,
                changed = news.changed() => if changed.is_err() { return },
                () = sleep_until(at) => if at.elapsed() > stall { keep_all_alive(group, term) },
            }
            continue;
        }
        if may_not_propose(node) {
            sleep(RETRY).await;
            continue;
        }
        if !std::mem::take(&mut is_confirmed) {
            // Nothing ends on the word of a primary that nobody could ask to keep a lease alive.
            let confirmed = group.confirm_leadership().await;
            match confirmed {
                Ok(confirmed) if confirmed == term => {}
                Ok(_) => return,
                Err(error) => {
                    debug!(group = %group.id(), %error, "no quorum: leases and keys do not expire");
                    is_alone = true;
                    sleep(RETRY).await;
                    continue;
                }
            }
            if std::mem::take(&mut is_alone) || now.elapsed() > stall {
                keep_all_alive(group, term);
            }
        }
        let proposed = Instant::now();
        is_confirmed = end(group, term).await;
        if proposed.elapsed() > stall {
            keep_all_alive(group, term);
        }
    }
}

fn keep_all_alive(group: &Replica, term: Term) {
    if group.state_machine().keep_all_alive(term) {
        info!(group = %group.id(), "leases restarted with their full time after a pause");
    }
}

/// Proposes one entry of ends. Returns whether it was applied, and brought something to its end.
async fn end(group: &Replica, term: Term) -> bool {
    let ends = group.state_machine().ends(term);
    if ends.commands.is_empty() {
        return false;
    }
    let ended = group.expire(&ends.commands).await;
    group.state_machine().ended(term, &ends);
    match ended {
        Ok(true) => return true,
        Ok(false) => debug!(group = %group.id(), "postponing the expiry of keys"),
        Err(error) => {
            debug!(group = %group.id(), %error, "proposing the expiry of leases or keys again");
        }
    }
    sleep(RETRY).await;
    false
}

/// Returns whether the node's proposals would do harm now: its data directory may be a copy, or
/// there is no room for entries.
fn may_not_propose(node: &Node) -> bool {
    // As for writes: as long as keys can be written, they end.
    let log_is_full =
        || node.store().wal().stats().bytes_held >= node.settings().log_bytes_max / 8 * 7;
    node.incarnations().held().is_some() || node.store().disk_full() || log_is_full()
}
