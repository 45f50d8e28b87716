//! A control group of one node that keeps the books as the real one does, and misbehaves on
//! request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use dkv_base::id::{HolderId, NodeId};
use dkv_wire::codec::decode;
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::limits::SERVER_FRAME_BYTES_MAX;
use dkv_wire::message::{
    Answer, BookKey, BooksChange, BooksPage, BooksVersion, Confirmation, Opening, Refusal, Reply,
    Request, RequestBody, ServerAnswer, ServerRequest,
};
use dkv_wire::quic::{Close, Endpoint};
use dkv_wire::tls::Admit;
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::support::Peer;

/// The books at one version.
#[derive(Clone, Default)]
pub struct State {
    pub version: BooksVersion,
    pub complete: bool,
    pub recent: Vec<Uuid>,
    pub servers: BTreeMap<HolderId, SocketAddr>,
    pub records: BTreeMap<BookKey, Bytes>,
    /// The questions so far.
    pub asked: Vec<RequestBody>,
    /// A server that gets no answer.
    pub cut_off: Option<SocketAddr>,
    /// Answers every question, if there is one.
    pub refusal: Option<Refusal>,
    /// Answers every change, if there is one.
    pub rejection: Option<String>,
    /// How long a connection takes.
    pub distance: std::time::Duration,
    /// Whether those who ask are refused for good, as one that was removed is.
    pub denies: bool,
    /// Whether changes are made without an answer, each followed by one of another server.
    pub is_mute: bool,
    /// Whether questions are answered and no change is made, as by a coordinator that was deposed
    /// and does not know it yet.
    pub is_deposed: bool,
}

impl State {
    /// Returns the answer to a question; `None` for none at all.
    fn answer(&mut self, asker: SocketAddr, body: RequestBody) -> Option<Result<Answer, Refusal>> {
        self.asked.push(body.clone());
        if self.cut_off == Some(asker) {
            return None;
        }
        if let Some(refusal) = &self.refusal {
            return Some(Err(refusal.clone()));
        }
        Some(match body {
            RequestBody::Books { known, .. } => Ok(Answer::Books(Box::new(self.page(known)))),
            RequestBody::ChangeBooks(_) if self.is_deposed => {
                Err(Refusal::Unavailable("no quorum answers".into()))
            }
            RequestBody::ChangeBooks(change) => {
                let is_new = !self.recent.contains(&change.id);
                let changed = self.rejection.clone().map_or_else(|| self.change(*change), Err);
                if self.is_mute {
                    if is_new && changed.is_ok() {
                        self.change_elsewhere();
                    }
                    return None;
                }
                changed.map(|()| Answer::Done).map_err(Refusal::Invalid)
            }
            _ => Err(Refusal::Invalid("not about the books".into())),
        })
    }

    /// Makes a change that another server decided on.
    pub fn change_elsewhere(&mut self) {
        let (id, at) = (HolderId::random().0, self.version);
        let (records, servers) = (Vec::new(), Vec::new());
        self.change(BooksChange { id, at, complete: true, records, servers }).unwrap();
    }

    fn page(&self, known: Option<BooksVersion>) -> BooksPage {
        let records = self.records.iter().map(|(key, record)| (*key, record.clone())).collect();
        BooksPage {
            version: self.version,
            complete: self.complete,
            recent: self.recent.clone(),
            servers: self.servers.iter().map(|(id, address)| (*id, *address)).collect(),
            records: if known == Some(self.version) { Vec::new() } else { records },
            more: false,
        }
    }

    fn change(&mut self, change: BooksChange) -> Result<(), String> {
        if self.recent.contains(&change.id) {
            return Ok(());
        }
        if self.version != change.at {
            return Err(format!("the books are at version {}", self.version.number));
        }
        for (key, record) in change.records {
            match record {
                Some(record) => self.records.insert(key, record),
                None => self.records.remove(&key),
            };
        }
        for (server, address) in change.servers {
            match address {
                Some(address) => self.servers.insert(server, address),
                None => self.servers.remove(&server),
            };
        }
        self.version = BooksVersion { number: self.version.number + 1, change: change.id };
        self.complete = change.complete;
        self.recent.push(change.id);
        Ok(())
    }
}

/// A node that answers as the coordinator.
pub struct Group {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: AbortHandle,
}

impl Group {
    /// Starts to listen with the credentials of `peer`.
    pub fn start(peer: &Peer) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let credentials = peer.credentials.clone();
        let endpoint = Endpoint::listen(any, credentials, Admit::Certified, &[7; 32]).unwrap();
        let state = Arc::<Mutex<State>>::default();
        let address = endpoint.local_address().unwrap();
        let task = tokio::spawn(accept(endpoint, Arc::clone(&state))).abort_handle();
        Self { address, state, task }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Registers the node that answers here.
    pub async fn register(&self, peer: &Peer) {
        peer.register(self.address.port()).await;
    }

    /// Has the node report itself as the coordinator and the only voter.
    pub async fn report(&self, peer: &Peer, term: u64) {
        self.report_with(peer, term, &[]).await;
    }

    /// The same with other voters, which answer elsewhere.
    pub async fn report_with(&self, peer: &Peer, term: u64, others: &[(&Peer, &Self)]) {
        let mut voters = vec![peer];
        voters.extend(others.iter().map(|(peer, _)| *peer));
        let mut report = peer.report_of(term, &voters, &[]);
        let addresses = others.iter().map(|(_, group)| group.address);
        let addresses = std::iter::once(self.address).chain(addresses);
        for (node, address) in report.view.nodes.iter_mut().zip(addresses) {
            node.address = address;
        }
        let answer = peer.ask(&ServerRequest::Report(report)).await;
        assert_eq!(answer, ServerAnswer::Confirmed(Confirmation::Confirmed));
    }

    /// Refuses everything as a node does that no longer leads.
    pub fn step_down(&self, for_another: Option<NodeId>) {
        self.state().refusal = Some(Refusal::NotPrimary { primary: for_another });
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(endpoint: Endpoint, state: Arc<Mutex<State>>) {
    while let Some(incoming) = endpoint.quinn().accept().await {
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let distance = state.lock().unwrap().distance;
            tokio::time::sleep(distance).await;
            let Ok(connection) = incoming.await else { return };
            while let Ok((send, receive)) = connection.accept_bi().await {
                let mut reader = FrameReader::new(receive, SERVER_FRAME_BYTES_MAX);
                let mut writer = FrameWriter::new(send);
                let opening = reader.next().await.unwrap().unwrap();
                assert_eq!(decode::<Opening>(&opening), Ok(Opening::Requests));
                let request = reader.next().await.unwrap().unwrap();
                let Request { id, body, .. } = decode(&request).unwrap();
                if state.lock().unwrap().denies {
                    return Close::Denied.close(&connection, "removed from the network");
                }
                let asker = connection.remote_address();
                let answer = state.lock().unwrap().answer(asker, body);
                let Some(result) = answer else {
                    // Until the server gives up.
                    let _ = reader.next().await;
                    continue;
                };
                // The server may have given up.
                let _ = writer.send(&Reply { id, result }).await;
            }
        });
    }
}
