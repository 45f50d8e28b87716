//! NATS JetStream: three servers and a key-value bucket of three replicas on disk. `sync_interval:
//! always` makes it sync every write before it answers; by default it syncs every two minutes.
//!
//! All clients share a few connections. These lead to the server that leads the bucket's stream;
//! eventual reads (direct gets) go to all servers in turn. The leader does not ask a majority
//! whether it still leads before it answers a read, so such a read promises less than a
//! linearizable one. NATS offers no stronger read. No TLS.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::kv::{Config, Store, UpdateError, UpdateErrorKind};
use async_nats::jetstream::stream::{ClusterInfo, LastRawMessageErrorKind, StorageType};
use futures::future::BoxFuture;
use futures::stream::StreamExt;

use super::processes::free_ports;
use super::{Answer, Changes, Driver, Leader, Processes, Purpose, Setup, System, program, until};
use crate::workload::Operation;

const NAMES: [&str; 3] = ["n1", "n2", "n3"];
const BUCKET: &str = "bench";
/// Connections that clients share.
const CONNECTIONS: usize = 4;
/// Publishes of one connection that may await their acknowledgement; more than there are clients.
const IN_FLIGHT: usize = 65_536;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A running cluster.
pub(super) struct Nats {
    processes: Processes,
    program: PathBuf,
    client_ports: [u16; 3],
    route_ports: [u16; 3],
}

impl Nats {
    /// Starts a cluster, creates the bucket, and waits until it is complete.
    pub(super) async fn start(setup: &Setup) -> Result<Self, String> {
        let [a, b, c, d, e, f] = free_ports()?;
        let mut cluster = Self {
            processes: Processes::new(setup.dir.as_deref())?,
            program: program(setup, "nats-server"),
            client_ports: [a, b, c],
            route_ports: [d, e, f],
        };
        for name in NAMES {
            cluster.restart(name)?;
        }
        until(&cluster.processes, || cluster.create()).await?;
        cluster.wait_whole().await?;
        Ok(cluster)
    }

    fn addresses(&self) -> Vec<String> {
        self.client_ports.iter().map(|port| format!("127.0.0.1:{port}")).collect()
    }

    async fn connect(
        &self,
        addresses: Vec<String>,
        timeout: Duration,
    ) -> Result<async_nats::jetstream::Context, String> {
        let client = ConnectOptions::new()
            .request_timeout(Some(timeout))
            .connection_timeout(Duration::from_secs(1))
            .reconnect_delay_callback(|_| Duration::from_millis(10))
            .ignore_discovered_servers()
            .connect(addresses)
            .await
            .map_err(|error| error.to_string())?;
        let context = ContextBuilder::new().timeout(timeout).ack_timeout(timeout);
        Ok(context.max_ack_inflight(IN_FLIGHT).build(client))
    }

    async fn create(&self) -> Result<(), String> {
        let config = Config {
            bucket: BUCKET.into(),
            history: 1,
            num_replicas: NAMES.len(),
            storage: StorageType::File,
            ..Config::default()
        };
        let context = self.connect(self.addresses(), Duration::from_secs(3)).await?;
        context.create_key_value(config).await.map(drop).map_err(|error| error.to_string())
    }

    async fn store(&self, addresses: Vec<String>, timeout: Duration) -> Result<Store, String> {
        let context = self.connect(addresses, timeout).await?;
        context.get_key_value(BUCKET).await.map_err(|error| error.to_string())
    }

    /// Returns the Raft group of the bucket's stream, as a running server sees it.
    async fn group(&self) -> Result<ClusterInfo, String> {
        let store = self.store(self.addresses(), Duration::from_secs(1)).await?;
        let info = store.stream.get_info().await.map_err(|error| error.to_string())?;
        info.cluster.ok_or_else(|| "the stream is in no cluster".into())
    }

    /// Returns the index of the server that leads.
    async fn leading(&self) -> Result<usize, String> {
        let leader = self.group().await?.leader;
        let index = NAMES.iter().position(|name| Some(*name) == leader.as_deref());
        index.ok_or_else(|| "no server leads the stream".into())
    }
}

impl System for Nats {
    fn processes(&self) -> &Processes {
        &self.processes
    }

    fn processes_mut(&mut self) -> &mut Processes {
        &mut self.processes
    }

    fn drivers(
        &self,
        clients: usize,
        purpose: Purpose,
    ) -> BoxFuture<'_, Result<Vec<Arc<dyn Driver>>, String>> {
        Box::pin(async move {
            let all = self.addresses();
            let leader = all[until(&self.processes, || self.leading()).await?].clone();
            let (direct, timeout) = match purpose {
                Purpose::Measure => (vec![leader], REQUEST_TIMEOUT),
                Purpose::Survive(attempt) => (all.clone(), attempt),
            };
            let mut any = Vec::new();
            for address in &all {
                any.push(self.store(vec![address.clone()], timeout).await?);
            }
            let mut drivers: Vec<Arc<dyn Driver>> = Vec::new();
            for number in 0..clients.min(CONNECTIONS) {
                let direct = self.store(direct.clone(), timeout).await?;
                let next = AtomicUsize::new(number);
                drivers.push(Arc::new(NatsDriver { direct, any: any.clone(), next, timeout }));
            }
            Ok((0..clients).map(|client| Arc::clone(&drivers[client % drivers.len()])).collect())
        })
    }

    fn watches(&self, count: usize) -> BoxFuture<'_, Result<Vec<Changes>, String>> {
        Box::pin(async move {
            let leader = until(&self.processes, || self.leading()).await?;
            let leader = self.addresses()[leader].clone();
            let mut stores = Vec::new();
            for _ in 0..count.min(CONNECTIONS) {
                stores.push(self.store(vec![leader.clone()], REQUEST_TIMEOUT).await?);
            }
            let mut watches = Vec::new();
            for number in 0..count {
                // NATS's wildcards end at dots, and keys have none: all of them come, and the
                // others are left out here.
                let watch = stores[number % stores.len()].watch_all().await;
                let watch = watch.map_err(|error| error.to_string())?;
                let values = watch.filter_map(|entry| async {
                    match entry {
                        Ok(entry) => entry.key.starts_with("key-").then_some(Ok(entry.value)),
                        Err(error) => Some(Err(error.to_string())),
                    }
                });
                watches.push(values.boxed());
            }
            Ok(watches)
        })
    }

    fn leader(&self) -> BoxFuture<'_, Result<Leader, String>> {
        Box::pin(async move {
            let index = until(&self.processes, || self.leading()).await?;
            Ok(Leader { name: NAMES[index].to_owned(), note: "leader of the stream".into() })
        })
    }

    fn restart(&mut self, name: &str) -> Result<(), String> {
        let index = NAMES.iter().position(|known| *known == name).ok_or("no such server")?;
        let routes: Vec<String> =
            self.route_ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let config = format!(
            "server_name: {name}\nlisten: \"127.0.0.1:{}\"\nmax_payload: 8MB\nmax_pending: 256MB\n\
             jetstream {{ store_dir: \"{}\", sync_interval: always, max_file_store: 32GB }}\n\
             cluster {{ name: bench, listen: \"127.0.0.1:{}\", routes: [{}] }}\n",
            self.client_ports[index],
            self.processes.path(name).display(),
            self.route_ports[index],
            routes.join(", "),
        );
        let path = self.processes.path(&format!("{name}.conf"));
        std::fs::write(&path, config).map_err(|error| error.to_string())?;
        self.processes.start(name, Command::new(&self.program).arg("-c").arg(path))
    }

    fn wait_whole(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(until(&self.processes, || async {
            let group = self.group().await?;
            let current = group.replicas.iter().filter(|peer| peer.current && !peer.offline);
            if group.leader.is_some() && current.count() + 1 == NAMES.len() {
                Ok(())
            } else {
                Err("not all replicas are there".into())
            }
        }))
    }
}

struct NatsDriver {
    direct: Store,
    any: Vec<Store>,
    next: AtomicUsize,
    timeout: Duration,
}

impl NatsDriver {
    async fn operate(&self, operation: Operation) -> Result<Answer, String> {
        match operation {
            Operation::Put { key, value } => {
                self.direct.put(key, value).await.map_err(|error| error.to_string())?;
            }
            Operation::Get { key } => {
                if self.read(&key).await?.is_none() {
                    return Ok(Answer::Missing);
                }
            }
            Operation::EventualGet { key } => {
                let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.any.len();
                let read = self.any[turn].get(key).await.map_err(|error| error.to_string())?;
                if read.is_none() {
                    return Ok(Answer::Missing);
                }
            }
            Operation::ReadModifyWrite { key, value } => {
                let Some(revision) = self.read(&key).await? else { return Ok(Answer::Missing) };
                match self.direct.update(key, value, revision).await {
                    Ok(_) => {}
                    Err(error) if is_conflict(&error) => return Ok(Answer::Conflict),
                    Err(error) => return Err(error.to_string()),
                }
            }
            Operation::Scan { .. } => return Err("no scans".into()),
            Operation::Transaction { .. } => return Err("no transactions".into()),
        }
        Ok(Answer::Done)
    }

    /// Returns the revision of a key, with its value, from the stream's leader.
    async fn read(&self, key: &str) -> Result<Option<u64>, String> {
        let subject = format!("$KV.{BUCKET}.{key}");
        match self.direct.stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => Ok(Some(message.sequence)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Servers refuse with one of two codes, and the library knows only one of them.
fn is_conflict(error: &UpdateError) -> bool {
    error.kind() == UpdateErrorKind::WrongLastRevision
        || error.to_string().contains("wrong last sequence")
}

impl Driver for NatsDriver {
    fn run(&self, operation: Operation) -> BoxFuture<'_, Result<Answer, String>> {
        Box::pin(async move {
            // While disconnected the library queues requests; this bounds the wait.
            let operated = tokio::time::timeout(self.timeout, self.operate(operation));
            operated.await.unwrap_or_else(|_| Err("no answer in time".into()))
        })
    }
}
