//! The incarnation of this node's process, and the incarnations of the other nodes that were heard.
//!
//! A data directory can be copied, restored, and started twice. So a node tells its peers which
//! incarnation of its process they are talking to ([`dkv_wire::incarnation`]), and expects the same
//! from them:
//!
//! - [`store`]: the number of this start, which is on disk before the node sends anything, and the
//!   record of what was heard of the other nodes, so that it survives a restart.
//! - [`server_verdict`]: the node asks the server before it serves, and every few seconds.
//! - [`handshake`]: two nodes exchange their incarnations on each connection before they send
//!   anything else on it. A node sends nothing else to one that it refuses: the refused node gets
//!   no votes, and its acknowledgements do not count.
//! - [`verdicts`]: the conclusions that this node draws from the verdicts of others on its
//!   incarnation. The server's verdict can hold the node back; only the ruling of an administrator,
//!   which arrives through the server, can end it. Another node may be wrong, so its verdict alone
//!   does not hold back a node that the server has found sound.
//!
//! Deliberately missing: anything about Raft. A node that is held back is silent, and Raft copes
//! with that.

mod server_verdict;
mod store;
mod handshake;
mod verdicts;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use dkv_base::id::NodeId;
use dkv_base::sync::lock;
use dkv_wire::incarnation::{
    BootId, Incarnation, IncarnationTracker, Observation, Ruling, Verdict,
};
use dkv_wire::limits;
use dkv_wire::message::Question;
use dkv_wire::quic::Close;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{info, warn};

pub use handshake::introduce;
#[cfg(test)]
pub(crate) use handshake::refuse_all;
pub(crate) use handshake::{Caller, HandshakeError, frame, frame_samples, greet, serve};
pub(crate) use server_verdict::{Farewell, before_serving, keep_asking, say_goodbye};
pub(crate) use store::{IncarnationFileError, begin, keep_records};
use verdicts::Verdicts;

use crate::net::denials::DenialLog;
use dkv_wal::Wal;

/// Nodes whose incarnations are remembered: room for as many nodes as can be members at a time, and
/// for as many strangers.
const KNOWN_MAX: usize = 2 * limits::NODES_MAX;
/// Time within which an incarnation must show that it is alive after another one has appeared, and
/// the interval of the checks whether it has.
const ANSWERS_WITHIN: Duration = Duration::from_millis(500);
const ANSWER_LOOK: Duration = Duration::from_millis(20);

/// The incarnations that a node knows of, its own first. Clones share them.
#[derive(Clone)]
pub(crate) struct Incarnations {
    shared: Arc<IncarnationsInner>,
}

struct IncarnationsInner {
    me: NodeId,
    /// The data directory, where the records are stored.
    directory: PathBuf,
    own: Incarnation,
    /// The node's log, and this incarnation as it was when the log was opened.
    wal: OnceLock<(Wal, Incarnation)>,
    /// The node's name and address, for messages.
    named: OnceLock<(String, SocketAddr)>,
    tracker: Mutex<IncarnationTracker<NodeId>>,
    /// Whether the records have changes that must reach the disk at once (`has_news`) or can wait
    /// (`has_marks`).
    has_news: AtomicBool,
    has_marks: AtomicBool,
    verdicts: Mutex<Verdicts>,
    /// The server's last question.
    asked: Mutex<Option<Question>>,
    /// The reason why the node takes no part, while it does not.
    held: watch::Sender<Option<Arc<str>>>,
    /// Connections, with the incarnation at their other end.
    links: Mutex<BTreeMap<NodeId, Vec<(BootId, quinn::Connection)>>>,
    /// Notified when a second incarnation of a node may exist: each task that is connected to one
    /// then asks it at once.
    doubts: Mutex<BTreeMap<NodeId, Arc<Notify>>>,
    /// Notified when another node refuses this one.
    refusal: Notify,
    /// The nodes that this node refuses, with one sentence each.
    refused: Mutex<BTreeMap<NodeId, (BootId, Verdict, String)>>,
    /// The rate-limited log of these refusals.
    denials: DenialLog,
}

impl Incarnations {
    fn new(
        me: NodeId,
        directory: &Path,
        own: Incarnation,
        tracker: IncarnationTracker<NodeId>,
    ) -> Self {
        let shared = IncarnationsInner {
            me,
            directory: directory.to_owned(),
            own,
            wal: OnceLock::new(),
            named: OnceLock::new(),
            tracker: Mutex::new(tracker),
            has_news: AtomicBool::new(false),
            has_marks: AtomicBool::new(false),
            verdicts: Mutex::default(),
            asked: Mutex::default(),
            held: watch::Sender::new(None),
            links: Mutex::default(),
            doubts: Mutex::default(),
            refusal: Notify::new(),
            refused: Mutex::default(),
            denials: DenialLog::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Sets the node's name and listening address.
    pub(crate) fn name(&self, name: &str, address: SocketAddr) {
        let _ = self.shared.named.set((name.to_owned(), address));
    }

    /// Returns this incarnation, with the number of entries that its log has on disk.
    pub(crate) fn own(&self) -> Incarnation {
        match self.shared.wal.get() {
            Some((wal, opened)) => Incarnation { mark: wal.durable_records(), ..opened.clone() },
            None => self.shared.own.clone(),
        }
    }

    /// Returns the reason why this node takes no part, while it does not.
    pub(crate) fn held(&self) -> Option<Arc<str>> {
        self.shared.held.borrow().clone()
    }

    /// Returns the reason why the server holds this node back, while it does.
    pub(crate) fn held_by_server(&self) -> Option<Arc<str>> {
        lock(&self.shared.verdicts).held_by_server()
    }

    /// Returns the reason why this node takes no writes, while it does not.
    pub(crate) fn doubted(&self) -> Option<Arc<str>> {
        self.held().or_else(|| lock(&self.shared.verdicts).doubt(Instant::now()))
    }

    /// Sets the members: their verdicts on this node count, and they are never forgotten.
    pub(crate) fn know(&self, mut members: BTreeSet<NodeId>) {
        members.remove(&self.shared.me);
        lock(&self.shared.verdicts).know(members);
        self.stand_as_told();
    }

    /// Returns whether the server has found this incarnation sound.
    pub(crate) fn is_vouched_for(&self) -> bool {
        lock(&self.shared.verdicts).is_vouched_for()
    }

    /// Returns notes for an administrator, one sentence each.
    pub(crate) fn notes(&self) -> Vec<String> {
        let own = self.doubted().map(|why| why.to_string());
        let refused = lock(&self.shared.refused);
        own.into_iter().chain(refused.values().map(|(_, _, note)| note.clone())).collect()
    }

    /// Takes note of the server's verdict on this incarnation.
    pub(crate) fn hear_server(&self, verdict: Verdict) {
        let own = self.own();
        lock(&self.shared.verdicts).hear_server(
            verdict,
            self.explain(verdict, &own),
            Instant::now(),
        );
        self.stand_as_told();
    }

    /// Takes note of another node's verdict on this incarnation.
    fn hear_peer(&self, node: NodeId, verdict: Verdict) {
        let own = self.own();
        let is_new = {
            let why = format!("node {} says: {}", node.short(), self.explain(verdict, &own));
            lock(&self.shared.verdicts).hear_peer(node, verdict, why, Instant::now())
        };
        if is_new {
            match verdict {
                Verdict::Sound => info!(%node, "another node accepts this one again"),
                _ => {
                    warn!(%node, "another node refuses this one: {}", self.explain(verdict, &own));
                    self.shared.refusal.notify_one();
                }
            }
        }
        self.stand_as_told();
    }

    fn stand_as_told(&self) {
        let held = lock(&self.shared.verdicts).held(Instant::now());
        let changed = self.shared.held.send_if_modified(|now| {
            let changed = *now != held;
            now.clone_from(&held);
            changed
        });
        match held {
            Some(why) if changed => {
                warn!("this node takes no part: {why}");
                let linked: Vec<NodeId> = lock(&self.shared.links).keys().copied().collect();
                for node in linked {
                    self.part_from(node, |_| true, "held back");
                }
            }
            None if changed => info!("this node takes part"),
            _ => {}
        }
    }

    /// Records an incarnation of another node. `answers` is the question that the node answered, if
    /// there was one. Closes the connections to the incarnation if it may not take part.
    fn hear(&self, node: NodeId, run: &Incarnation, answers: Option<u64>) -> Observation {
        self.make_room(node);
        let mut tracker = lock(&self.shared.tracker);
        let mark =
            tracker.record(node).and_then(|known| known.run.as_ref()).map(|known| known.mark);
        let heard = tracker.observe(node, run, answers);
        drop(tracker);
        if heard.is_news {
            self.shared.has_news.store(true, Ordering::Relaxed);
        }
        if mark != Some(run.mark) {
            self.shared.has_marks.store(true, Ordering::Relaxed);
        }
        // The node may yet turn out to run twice.
        let is_final = !matches!(heard.verdict, Verdict::Older { .. }) || !heard.ask_again;
        if is_final {
            self.note(node, run, heard.verdict);
        }
        if heard.ask_again {
            self.doubt_of(node).notify_waiters();
        }
        match heard.verdict {
            Verdict::Sound => {}
            Verdict::Twice { .. } => self.part_from(node, |_| true, "it runs twice"),
            _ if !is_final => {}
            _ => self.part_from(node, |boot| boot == run.boot, "it may not take part"),
        }
        heard
    }

    /// Forgets strangers without connections if there is no room for one more node.
    fn make_room(&self, node: NodeId) {
        let mut tracker = lock(&self.shared.tracker);
        if tracker.record(node).is_some() || tracker.records().len() < KNOWN_MAX {
            return;
        }
        let mut links = lock(&self.shared.links);
        links.retain(|_, links| links.iter().any(|(_, open)| open.close_reason().is_none()));
        let verdicts = lock(&self.shared.verdicts);
        let stays = |known: &NodeId| verdicts.is_member(*known) || links.contains_key(known);
        tracker.retain(|known| stays(&known));
        lock(&self.shared.doubts).retain(|known, _| stays(known));
        lock(&self.shared.refused).retain(|known, _| stays(known));
    }

    /// Admits an incarnation of another node over a connection with it. If another incarnation of
    /// that node is connected from a different address, asks it first whether it is alive, and cuts
    /// it off if it does not answer.
    ///
    /// # Errors
    /// Fails if both are alive.
    async fn let_in(
        &self,
        node: NodeId,
        boot: BootId,
        connection: &quinn::Connection,
    ) -> Result<(), HandshakeError> {
        let address = connection.remote_address();
        let may_live = || {
            let links = lock(&self.shared.links);
            let mut links = links.get(&node).into_iter().flatten();
            // Two processes cannot share an address, so one at the same address is gone.
            links.any(|(other, open)| {
                *other != boot && open.close_reason().is_none() && open.remote_address() != address
            })
        };
        let begun = Instant::now();
        while may_live() && begun.elapsed() < ANSWERS_WITHIN {
            self.doubt_of(node).notify_waiters();
            tokio::time::sleep(ANSWER_LOOK).await;
            if lock(&self.shared.tracker).record(node).is_some_and(|record| record.twice) {
                return Err(HandshakeError::RunsTwice);
            }
        }
        self.part_from(node, |other| other != boot, "it was restarted");
        self.link(node, boot, connection);
        Ok(())
    }

    /// Returns the notification that a second incarnation of a node may exist.
    fn doubt_of(&self, node: NodeId) -> Arc<Notify> {
        Arc::clone(lock(&self.shared.doubts).entry(node).or_default())
    }

    /// Returns when another node has refused this one since the last call.
    async fn refused_by_peer(&self) {
        self.shared.refusal.notified().await;
    }

    /// Logs each refusal of a node once.
    fn note(&self, node: NodeId, run: &Incarnation, verdict: Verdict) {
        let mut refused = lock(&self.shared.refused);
        let before = refused.get(&node).map(|(boot, verdict, _)| (*boot, *verdict));
        let name = node.short();
        let note = match verdict {
            Verdict::Sound => {
                if refused.remove(&node).is_some() {
                    info!(%node, start = run.start, "accepting the node again");
                }
                return;
            }
            Verdict::Older { start, mark } => format!(
                "node {name} is refused: its directory (start {}, {} entries and votes) is an \
                 older copy of one that was heard before (start {start}, {mark} entries and votes)",
                run.start, run.mark
            ),
            Verdict::Twice { start } => format!(
                "node {name} is refused: two of its processes run (starts {start} and {}), and \
                 nobody has said which is to go on",
                run.start
            ),
            Verdict::Dismissed { start } => format!(
                "node {name} is refused: an administrator has said that its start {start} goes on, \
                 and this is start {}",
                run.start
            ),
        };
        if before.is_none_or(|(boot, said)| boot != run.boot || !is_alike(said, verdict)) {
            self.shared.denials.note(node, &note);
        }
        refused.insert(node, (run.boot, verdict, note));
    }

    /// Registers a connection to an incarnation of another node.
    fn link(&self, node: NodeId, boot: BootId, connection: &quinn::Connection) {
        let mut links = lock(&self.shared.links);
        let links = links.entry(node).or_default();
        links.retain(|(_, open)| open.close_reason().is_none());
        links.push((boot, connection.clone()));
    }

    /// Closes the connections to the incarnations of a node that `whom` selects.
    fn part_from(&self, node: NodeId, whom: impl Fn(BootId) -> bool, why: &str) {
        let mut links = lock(&self.shared.links);
        let Some(links) = links.get_mut(&node) else { return };
        links.retain(|(boot, connection)| {
            if whom(*boot) {
                Close::Done.close(connection, why);
            }
            !whom(*boot)
        });
    }

    /// Records how much of its log the peer at the other end of a connection has on disk.
    pub(crate) fn advance(&self, node: NodeId, connection: &quinn::Connection, mark: u64) {
        let links = lock(&self.shared.links);
        let here =
            |(_, open): &&(BootId, quinn::Connection)| open.stable_id() == connection.stable_id();
        let Some((boot, _)) = links.get(&node).and_then(|links| links.iter().find(here)) else {
            return;
        };
        lock(&self.shared.tracker).advance(node, *boot, mark);
        self.shared.has_marks.store(true, Ordering::Relaxed);
    }

    /// Returns the number of a new question to other nodes.
    fn question(&self) -> u64 {
        lock(&self.shared.tracker).question()
    }

    /// Carries out the rulings of administrators.
    fn obey(&self, rulings: &[(NodeId, Ruling)]) {
        for (node, ruling) in rulings {
            if *node == self.shared.me {
                if ruling.kept.boot == self.shared.own.boot {
                    lock(&self.shared.verdicts).kept(ruling.number);
                }
                continue;
            }
            if lock(&self.shared.tracker).obey(*node, ruling) {
                let start = ruling.kept.start;
                info!(%node, start, "an administrator has said which run of the node goes on");
                self.shared.has_news.store(true, Ordering::Relaxed);
                lock(&self.shared.refused).remove(node);
                self.part_from(*node, |boot| boot != ruling.kept.boot, "it was dismissed");
            }
        }
    }

    /// Explains a verdict on this incarnation, and the remedy.
    fn explain(&self, verdict: Verdict, own: &Incarnation) -> String {
        let (name, address) = match self.shared.named.get() {
            Some((name, address)) => (name.clone(), address.to_string()),
            None => (self.shared.me.short(), "its address".to_owned()),
        };
        let directory = self.shared.directory.display();
        let (this, has) = (own.start, own.mark);
        match verdict {
            Verdict::Sound => "it is sound".to_owned(),
            Verdict::Older { .. } if has == 0 => format!(
                "the data directory {directory} has this node's identity and nothing else: its log, \
                 with what this node has acknowledged and voted, is not there; it serves nothing. \
                 Put the whole directory back; only if it is lost, and `dkv status` shows no lag on \
                 the other nodes, start this node with another, empty one, and keep this one"
            ),
            Verdict::Older { start, mark } => format!(
                "the data directory {directory} is an older copy of this node's: it knows nothing \
                 of start {start}, or of what that wrote, and this node has acknowledged entry \
                 after entry since (here there are {has}, and there were {mark}); it serves \
                 nothing. Keep it, and put the newer directory back. If that is lost, and `dkv \
                 status` shows no lag on the other nodes, start this node with another, empty \
                 one; only if this copy is all there is, \"dkv SERVER keep {name} {address}\" \
                 lets it go on from where it is"
            ),
            Verdict::Twice { start } => format!(
                "two processes of this node run, with copies of one data directory: start {this} \
                 here at {address}, and start {start}; neither takes part until an administrator \
                 says which goes on: \"dkv SERVER keep {name} {address}\" keeps this one"
            ),
            Verdict::Dismissed { start } => format!(
                "an administrator has said that another process of this node goes on (start \
                 {start}), so this one (start {this}) ends; never start the data directory \
                 {directory} again, and keep it until you know that nothing in it is missed"
            ),
        }
    }
}

/// Returns whether two verdicts differ in numbers only.
fn is_alike(one: Verdict, other: Verdict) -> bool {
    std::mem::discriminant(&one) == std::mem::discriminant(&other)
}
