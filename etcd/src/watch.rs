//! The service Watch: many watches on one stream.
//!
//! Each watch of a stream is a task. All of a face share one watch of the network, the
//! [hub](crate::hub); one that has to catch up has its own, until it is where the hub is. A caller
//! that does not read stops its tasks, falls out of the hub, and stops the nodes. Answers go
//! through one short queue, so those of a watch come in order, and what says that all watches have
//! shown everything up to a revision comes after all of it; see [`progress`]. [`request`] and
//! [`answer`] are plain data.

mod answer;
mod progress;
mod request;
mod running;

use std::collections::HashMap;
use std::sync::Arc;

use dkv_api::Revision;
use futures::StreamExt;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use self::progress::{Progress, Told, Waited, all_show};
use self::request::Wanted;
use self::running::{BegunWatch, run};
use crate::access::Rules;
use crate::auth::{Guarded, StandingRight};
use crate::context::Context;
use crate::error::EtcdError;
use crate::etcd::{AnswerSender, Answers, Etcd, Requests, answers_of, panicked};
use crate::limits::{
    LEADER_CHECK_EVERY, RIGHTS_CHECK_EVERY, STREAM_WATCHES_MAX, WATCH_ANSWERS_WAITING,
};
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse};

/// The id of what concerns no single watch.
const NO_WATCH: i64 = -1;

type Sender = AnswerSender<WatchResponse>;

impl Etcd {
    /// Serves a stream of watches until the caller ends it.
    pub fn watch(
        &self,
        context: Context,
        requests: Requests<WatchRequest>,
    ) -> Answers<WatchResponse> {
        let etcd = self.clone();
        answers_of(WATCH_ANSWERS_WAITING, |answers| {
            let stream = WatchStream {
                etcd,
                context,
                answers,
                watches: HashMap::new(),
                tasks: JoinSet::new(),
                next_id: 0,
                progress: Progress::default(),
                checked: None,
            };
            stream.serve(requests)
        })
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
    progress: Progress,
    /// The rules by which all watches were permitted when they were last checked.
    checked: Option<Arc<Rules>>,
}

/// A watch, as its stream has it.
struct Shown {
    task: AbortHandle,
    /// It has shown everything up to this revision. The other end is dropped when the task is over.
    through: watch::Receiver<Revision>,
    /// It is to tell once it has shown everything up to this revision, also if nothing changes.
    awaited: watch::Sender<Revision>,
    /// The least revision at which it has progress to tell of.
    progress_from: Revision,
    right: StandingRight,
}

/// Whether the caller still listens.
struct Gone;

/// Says why a watch is not permitted: etcd's server writes the error of a call of its own.
fn denied(why: EtcdError) -> String {
    format!("rpc error: code = {:?} desc = {why}", why.code())
}

impl WatchStream {
    async fn serve(mut self, mut requests: Requests<WatchRequest>) {
        let mut leader = interval(LEADER_CHECK_EVERY);
        leader.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rights = interval(RIGHTS_CHECK_EVERY);
        rights.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
                Some(ended) = self.tasks.join_next() => self.handle_ended(ended).await,
                _ = rights.tick() => self.check_rights().await,
                told = self.progress.told() => self.handle_told(told).await,
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

    async fn handle_ended(&mut self, ended: Result<i64, JoinError>) -> Result<(), Gone> {
        match ended {
            // Another watch may have the id by now.
            Ok(id) if self.watches.get(&id).is_some_and(|shown| shown.task.is_finished()) => {
                self.watches.remove(&id);
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => match panicked(&error) {
                Some(error) => {
                    _ = self.answers.send(Err(error)).await;
                    Err(Gone)
                }
                None => Ok(()),
            },
        }
    }

    async fn handle(&mut self, request: WatchRequest) -> Result<(), Gone> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
            Some(RequestUnion::CancelRequest(cancel)) => {
                self.cancel(cancel.watch_id, String::new()).await
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                if self.progress.ask() {
                    self.begin_progress();
                }
                Ok(())
            }
            // As etcd: newer clients may ask for what there is not yet.
            None => Ok(()),
        }
    }

    async fn send(&mut self, answer: WatchResponse) -> Result<(), Gone> {
        self.answers.send(Ok(answer)).await.map_err(|_| Gone)
    }

    async fn create(&mut self, create: WatchCreateRequest) -> Result<(), Gone> {
        let begun = self.begin(&create).await;
        let (header, begun) = match begun {
            Ok((header, running, right)) => (header, Ok((running, right))),
            Err(why) => (self.etcd.known_header().await.unwrap_or_default(), Err(why)),
        };
        let (running, right) = match begun {
            Ok(begun) => begun,
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
        let progress_from = running.progress_from;
        let (awaited, asked) = watch::channel(Revision(0));
        let task = self.tasks.spawn(run(running, self.answers.clone(), through, asked));
        self.watches.insert(id, Shown { task, through: shown, awaited, progress_from, right });
        self.progress.note_watch();
        Ok(())
    }

    /// Begins a watch; the text says why it cannot.
    async fn begin(
        &mut self,
        create: &WatchCreateRequest,
    ) -> Result<(ResponseHeader, BegunWatch, StandingRight), String> {
        let wanted = Wanted::new(create)?;
        self.etcd.permit(&self.context, create).await.map_err(denied)?;
        let rules = self.etcd.rules().await.map_err(denied)?;
        let right = StandingRight::new(&self.etcd, &rules, &self.context, create.needs());
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
        let place = self.context.take_watch().map_err(text)?;
        let store = self.etcd.store().await.map_err(text)?;
        let receipt = store.latest().await;
        let receipt = receipt.map_err(|error| text(self.etcd.failed(error)))?;
        let header = self.etcd.header(&receipt, receipt.revision);
        let (after, first) = wanted.position(receipt.revision);
        let progress_from = wanted.progress_from(receipt.revision);
        let begun = BegunWatch {
            etcd: self.etcd.clone(),
            store,
            id,
            wanted,
            after,
            first,
            latest: receipt.revision,
            progress_from,
            _place: place,
        };
        Ok((header, begun, right))
    }

    /// Returns the next id that no watch has.
    fn free_id(&mut self) -> i64 {
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// Ends the watches that the caller could not begin any more.
    async fn check_rights(&mut self) -> Result<(), Gone> {
        let rules = match self.etcd.changed_rules(self.checked.as_ref()) {
            Ok(Some(rules)) => rules,
            Ok(None) => return Ok(()),
            Err(why) => {
                _ = self.answers.send(Err(why)).await;
                return Err(Gone);
            }
        };
        let mut withdrawn = Vec::new();
        for (id, shown) in &self.watches {
            if let Err(why) = shown.right.check(&self.etcd, &rules, &self.context).await {
                withdrawn.push((*id, denied(why)));
            }
        }
        // All at once: the answers wait for a caller that may read slowly.
        let ending = withdrawn.into_iter().map(|(id, why)| (id, why, self.abort(id)));
        let ending: Vec<_> = ending.collect();
        self.checked = Some(rules);
        for (id, why, shown) in ending {
            if let Some(shown) = shown {
                self.tell_canceled(id, shown, why).await?;
            }
        }
        Ok(())
    }

    async fn cancel(&mut self, id: i64, cancel_reason: String) -> Result<(), Gone> {
        match self.abort(id) {
            Some(shown) => self.tell_canceled(id, shown, cancel_reason).await,
            None => Ok(()),
        }
    }

    /// Has a watch end.
    fn abort(&mut self, id: i64) -> Option<Shown> {
        let shown = self.watches.remove(&id)?;
        shown.task.abort();
        Some(shown)
    }

    async fn tell_canceled(
        &mut self,
        id: i64,
        mut shown: Shown,
        cancel_reason: String,
    ) -> Result<(), Gone> {
        // It may be sending at this moment, and nothing of it may come after the answer.
        while shown.through.changed().await.is_ok() {}
        let header = self.etcd.known_header().await.ok();
        self.send(WatchResponse {
            header,
            watch_id: id,
            canceled: true,
            cancel_reason,
            ..WatchResponse::default()
        })
        .await
    }

    /// Begins to wait until all watches have shown everything that there is now.
    fn begin_progress(&mut self) {
        let watches = self.watches.values().map(|shown| Waited {
            through: shown.through.clone(),
            awaited: shown.awaited.clone(),
            progress_from: shown.progress_from,
        });
        let watches = watches.collect();
        let etcd = self.etcd.clone();
        self.progress.begin(async move {
            let store = etcd.store().await.ok()?;
            // Without a leader there is nothing to tell, and the caller asks again.
            let receipt = store.latest().await.map_err(|error| etcd.failed(error)).ok()?;
            let told = all_show(watches, receipt.revision).await;
            told.then(|| etcd.header(&receipt, receipt.revision))
        });
    }

    async fn handle_told(&mut self, told: Told) -> Result<(), Gone> {
        if told.again {
            self.begin_progress();
        }
        // As etcd, a stream without watches has no progress.
        match told.header.filter(|_| !self.watches.is_empty()) {
            Some(header) => {
                let header = Some(header);
                let watch_id = NO_WATCH;
                self.send(WatchResponse { header, watch_id, ..WatchResponse::default() }).await
            }
            None => Ok(()),
        }
    }
}
