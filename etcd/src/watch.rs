//! The service Watch: many watches on one stream.
//!
//! Each watch of a stream is a task with a watch of the network, which is a position and nothing
//! else: a caller that does not read stops its tasks, and they stop the nodes. Answers go through
//! one short queue, so those of a watch come in order, and what says that all watches have shown
//! everything up to a revision comes after all of it. [`request`] and [`answer`] are plain data.

mod answer;
mod request;
mod running;

use std::collections::HashMap;

use dkv_api::Revision;
use futures::StreamExt;
use futures::stream;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use self::request::Wanted;
use self::running::{BegunWatch, run};
use crate::context::Context;
use crate::error::EtcdError;
use crate::etcd::{Answers, Etcd, Requests};
use crate::limits::{LEADER_CHECK_EVERY, STREAM_WATCHES_MAX, WATCH_ANSWERS_WAITING};
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse};

/// The id of what concerns no single watch.
const NO_WATCH: i64 = -1;

type Sender = mpsc::Sender<Result<WatchResponse, EtcdError>>;

impl Etcd {
    /// Serves a stream of watches until the caller ends it.
    pub fn watch(
        &self,
        context: Context,
        requests: Requests<WatchRequest>,
    ) -> Answers<WatchResponse> {
        let (answers, receiver) = mpsc::channel(WATCH_ANSWERS_WAITING);
        let mut tasks = JoinSet::new();
        let stream = WatchStream {
            etcd: self.clone(),
            context,
            answers,
            watches: HashMap::new(),
            tasks: JoinSet::new(),
            next_id: 0,
            telling: None,
        };
        tasks.spawn(stream.serve(requests));
        // The tasks end when the answers are dropped.
        stream::unfold((receiver, tasks), |(mut receiver, tasks)| async move {
            let answer = receiver.recv().await?;
            Some((answer, (receiver, tasks)))
        })
        .boxed()
    }
}

/// A stream and its watches.
struct WatchStream {
    etcd: Etcd,
    context: Context,
    answers: Sender,
    watches: HashMap<i64, Shown>,
    /// The tasks of the watches; each returns the id of its watch when it ends by itself.
    tasks: JoinSet<i64>,
    next_id: i64,
    /// Whether a task is about to tell of progress, and whether it is asked for once more.
    telling: Option<bool>,
}

/// A watch, as its stream has it.
struct Shown {
    task: AbortHandle,
    /// It has shown everything up to this revision.
    through: watch::Receiver<Revision>,
}

/// Whether the caller still listens.
struct Gone;

impl WatchStream {
    async fn serve(mut self, mut requests: Requests<WatchRequest>) {
        let mut leader = interval(LEADER_CHECK_EVERY);
        leader.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The watches go on without further requests.
        let mut more = true;
        while more || !self.tasks.is_empty() {
            let handled = tokio::select! {
                request = requests.next(), if more => match request {
                    Some(Ok(request)) => self.handle(request).await,
                    Some(Err(_)) => return,
                    None => {
                        more = false;
                        Ok(())
                    }
                },
                Some(ended) = self.tasks.join_next() => {
                    self.note_ended(ended);
                    Ok(())
                }
                _ = leader.tick(), if self.context.requires_leader => {
                    if let Err(error) = self.etcd.check_leader(&self.context).await {
                        _ = self.answers.send(Err(error)).await;
                        return;
                    }
                    Ok(())
                }
            };
            if let Err(Gone) = handled {
                return;
            }
        }
    }

    fn note_ended(&mut self, ended: Result<i64, tokio::task::JoinError>) {
        match ended {
            Ok(NO_WATCH) => {
                if self.telling.take() == Some(true) {
                    self.tell_progress();
                }
            }
            // Another watch may have the id by now.
            Ok(id) if self.watches.get(&id).is_some_and(|shown| shown.task.is_finished()) => {
                self.watches.remove(&id);
            }
            Ok(_) => {}
            Err(_) => {}
        }
    }

    async fn handle(&mut self, request: WatchRequest) -> Result<(), Gone> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
            Some(RequestUnion::CancelRequest(cancel)) => self.cancel(cancel.watch_id).await,
            Some(RequestUnion::ProgressRequest(_)) => {
                match &mut self.telling {
                    Some(again) => *again = true,
                    None => self.tell_progress(),
                }
                Ok(())
            }
            // As etcd: newer clients may ask for what there is not yet.
            None => Ok(()),
        }
    }

    async fn send(&self, answer: WatchResponse) -> Result<(), Gone> {
        self.answers.send(Ok(answer)).await.map_err(|_| Gone)
    }

    async fn create(&mut self, create: WatchCreateRequest) -> Result<(), Gone> {
        let begun = self.begin(&create).await;
        let (header, begun) = match begun {
            Ok((header, running)) => (header, Ok(running)),
            Err(why) => (self.etcd.known_header().await.unwrap_or_default(), Err(why)),
        };
        let running = match begun {
            Ok(running) => running,
            Err(cancel_reason) => {
                return self
                    .send(WatchResponse {
                        header: Some(header),
                        watch_id: NO_WATCH,
                        created: true,
                        canceled: true,
                        cancel_reason,
                        ..WatchResponse::default()
                    })
                    .await;
            }
        };
        let id = running.id;
        self.send(WatchResponse {
            header: Some(header),
            watch_id: id,
            created: true,
            ..WatchResponse::default()
        })
        .await?;
        let (through, shown) = watch::channel(running.after);
        let task = self.tasks.spawn(run(running, self.answers.clone(), through));
        self.watches.insert(id, Shown { task, through: shown });
        Ok(())
    }

    /// Begins a watch; the text says why it cannot.
    async fn begin(
        &mut self,
        create: &WatchCreateRequest,
    ) -> Result<(ResponseHeader, BegunWatch), String> {
        let wanted = Wanted::new(create)?;
        // As etcd's server writes the error of its own call into the reason.
        let denied = |why: EtcdError| format!("rpc error: code = {:?} desc = {why}", why.code());
        self.etcd.permit(&self.context, create).await.map_err(denied)?;
        let id = match create.watch_id {
            0 => self.free_id(),
            id if self.watches.contains_key(&id) => {
                return Err("mvcc: duplicate watch ID provided on the WatchStream".to_owned());
            }
            id => id,
        };
        if self.watches.len() >= STREAM_WATCHES_MAX {
            return Err(format!("etcdserver: a stream has at most {STREAM_WATCHES_MAX} watches"));
        }
        let text = |error: EtcdError| error.to_string();
        let store = self.etcd.store().await.map_err(text)?;
        let receipt = store.latest().await;
        let receipt = receipt.map_err(|error| text(self.etcd.failed(error)))?;
        let header = self.etcd.header(&receipt, receipt.revision);
        let (after, first) = wanted.position(receipt.revision);
        let etcd = self.etcd.clone();
        Ok((header, BegunWatch { etcd, store, id, wanted, after, first }))
    }

    /// Returns the next id that no watch has.
    fn free_id(&mut self) -> i64 {
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    async fn cancel(&mut self, id: i64) -> Result<(), Gone> {
        let Some(shown) = self.watches.remove(&id) else { return Ok(()) };
        shown.task.abort();
        let header = self.etcd.known_header().await.ok();
        let canceled =
            WatchResponse { header, watch_id: id, canceled: true, ..WatchResponse::default() };
        self.send(canceled).await
    }

    /// Tells of progress once all watches have shown everything that there is now.
    fn tell_progress(&mut self) {
        let through: Vec<_> = self.watches.values().map(|shown| shown.through.clone()).collect();
        let (etcd, answers) = (self.etcd.clone(), self.answers.clone());
        self.tasks.spawn(async move {
            let latest = async {
                let store = etcd.store().await?;
                store.latest().await.map_err(|error| etcd.failed(error))
            };
            // Without a leader there is nothing to tell, and the caller asks again.
            let Ok(receipt) = latest.await else { return NO_WATCH };
            for mut shown in through {
                // A watch that has ended holds nothing back.
                _ = shown.wait_for(|through| *through >= receipt.revision).await;
            }
            let header = Some(etcd.header(&receipt, receipt.revision));
            let progress = WatchResponse { header, watch_id: NO_WATCH, ..WatchResponse::default() };
            _ = answers.send(Ok(progress)).await;
            NO_WATCH
        });
        self.telling = Some(false);
    }
}
