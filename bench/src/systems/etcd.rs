//! etcd: three members with default settings, except for a quota that the measurements do not
//! reach.
//!
//! All clients share a few gRPC channels, as etcd's documentation recommends. These lead to the
//! leader, which answers writes and linearizable reads directly. Eventual reads (`serializable`) go
//! to all members in turn. No TLS.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, Error, GetOptions, KvClient, Txn, TxnOp,
    WatchOptions,
};
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};

use super::processes::free_ports;
use super::{Answer, Changes, Driver, Leader, Processes, Purpose, Setup, System, program, until};
use crate::workload::{self, Operation};

const NAMES: [&str; 3] = ["n1", "n2", "n3"];
/// Connections that clients share.
const CHANNELS: usize = 4;
/// Quota of a member's database, in bytes; the most that etcd's documentation recommends.
const QUOTA_BYTES: u64 = 8 << 30;
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A running cluster.
pub(super) struct Etcd {
    processes: Processes,
    program: PathBuf,
    client_ports: [u16; 3],
    peer_ports: [u16; 3],
    times: Option<[u64; 2]>,
}

impl Etcd {
    /// Starts a cluster and waits until it is complete.
    pub(super) async fn start(setup: &Setup) -> Result<Self, String> {
        let [a, b, c, d, e, f] = free_ports()?;
        let mut cluster = Self {
            processes: Processes::new(setup.dir.as_deref())?,
            program: program(setup, "etcd"),
            client_ports: [a, b, c],
            peer_ports: [d, e, f],
            times: setup.etcd_times.as_deref().and_then(|times| times.try_into().ok()),
        };
        for name in NAMES {
            cluster.restart(name)?;
        }
        cluster.wait_whole().await?;
        Ok(cluster)
    }

    fn endpoint(&self, index: usize) -> String {
        format!("http://{}", self.address(index))
    }

    fn address(&self, index: usize) -> String {
        format!("127.0.0.1:{}", self.client_ports[index])
    }

    /// Returns the address of the leader for clients.
    pub(super) async fn leading_address(&self) -> Result<String, String> {
        let (leader, _) = self.status().await?;
        Ok(self.address(leader))
    }

    fn endpoints(&self) -> Vec<String> {
        (0..NAMES.len()).map(|index| self.endpoint(index)).collect()
    }

    /// Returns the index of the leader, and the applied index of each member.
    async fn status(&self) -> Result<(usize, Vec<u64>), String> {
        let (mut leader, mut applied) = (None, Vec::new());
        for index in 0..NAMES.len() {
            let options = ConnectOptions::new().with_timeout(Duration::from_millis(500));
            let status = async {
                let mut client = Client::connect([self.endpoint(index)], Some(options)).await?;
                client.status().await
            };
            // The other members can still tell which of them leads.
            let Ok(status) = status.await else { continue };
            let own = status.header().map(|header| header.member_id());
            if own == Some(status.leader()) && status.leader() != 0 {
                leader = Some(index);
            }
            applied.push(status.raft_applied_index());
        }
        Ok((leader.ok_or("no member leads")?, applied))
    }
}

impl System for Etcd {
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
            let (leader, _) = self.status().await?;
            let (direct, timeout) = match purpose {
                Purpose::Measure => (vec![self.endpoint(leader)], REQUEST_TIMEOUT),
                Purpose::Survive(attempt) => (self.endpoints(), attempt),
            };
            drivers(&direct, &self.endpoints(), clients, timeout).await
        })
    }

    fn watches(&self, count: usize) -> BoxFuture<'_, Result<Vec<Changes>, String>> {
        Box::pin(async move {
            let (leader, _) = self.status().await?;
            watches(&self.endpoint(leader), count).await
        })
    }

    fn etcd_endpoint(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async move { Ok(self.endpoint(self.status().await?.0)) })
    }

    fn leader(&self) -> BoxFuture<'_, Result<Leader, String>> {
        Box::pin(async move {
            let (index, _) = until(&self.processes, || self.status()).await?;
            Ok(Leader { name: NAMES[index].to_owned(), note: "leader".into() })
        })
    }

    fn restart(&mut self, name: &str) -> Result<(), String> {
        let index = NAMES.iter().position(|known| *known == name).ok_or("no such member")?;
        let client = self.endpoint(index);
        let peer = |index: usize| format!("http://127.0.0.1:{}", self.peer_ports[index]);
        let members: Vec<String> = NAMES
            .iter()
            .enumerate()
            .map(|(index, name)| format!("{name}={}", peer(index)))
            .collect();
        let mut command = Command::new(&self.program);
        command
            .args(["--name", name, "--data-dir"])
            .arg(self.processes.path(name))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer(index)])
            .args(["--initial-advertise-peer-urls", &peer(index)])
            .args(["--initial-cluster", &members.join(","), "--initial-cluster-state", "new"])
            .args(["--quota-backend-bytes", &QUOTA_BYTES.to_string()])
            .args(["--log-level", "warn"]);
        if let Some([heartbeat, election]) = self.times {
            command.args(["--heartbeat-interval", &heartbeat.to_string()]);
            command.args(["--election-timeout", &election.to_string()]);
        }
        self.processes.start(name, &mut command)
    }

    fn wait_whole(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(until(&self.processes, || async {
            let (_, applied) = self.status().await?;
            let (min, max) = (applied.iter().min(), applied.iter().max());
            match (min, max) {
                // Under load a follower is always a few entries behind.
                (Some(min), Some(max)) if applied.len() == NAMES.len() && max - min <= 256 => {
                    Ok(())
                }
                _ => Err("not all members are there".into()),
            }
        }))
    }
}

/// Returns clients whose writes and linearizable reads go to the `direct` endpoints, and others to
/// any of `all`.
pub(super) async fn drivers(
    direct: &[String],
    all: &[String],
    clients: usize,
    timeout: Duration,
) -> Result<Vec<Arc<dyn Driver>>, String> {
    let mut drivers: Vec<Arc<dyn Driver>> = Vec::new();
    for _ in 0..clients.min(CHANNELS) {
        let options = ConnectOptions::new().with_timeout(timeout);
        let connect =
            |endpoints: &[String]| Client::connect(endpoints.to_vec(), Some(options.clone()));
        let any = connect(all).await.map_err(|error| error.to_string())?;
        let direct = connect(direct).await.map_err(|error| error.to_string())?;
        let (direct, any) = (direct.kv_client(), any.kv_client());
        drivers.push(Arc::new(EtcdDriver { direct, any }));
    }
    Ok((0..clients).map(|client| Arc::clone(&drivers[client % drivers.len()])).collect())
}

/// Begins watches at an endpoint.
pub(super) async fn watches(endpoint: &str, count: usize) -> Result<Vec<Changes>, String> {
    let connect = || Client::connect([endpoint.to_owned()], None);
    let mut channels = Vec::new();
    for _ in 0..count.min(CHANNELS) {
        channels.push(connect().await.map_err(|error| error.to_string())?);
    }
    let mut watches = Vec::new();
    for number in 0..count {
        let mut client = channels[number % channels.len()].watch_client();
        let options = WatchOptions::new().with_prefix();
        let watch = client.watch("key-", Some(options)).await;
        let mut watch = watch.map_err(|error| error.to_string())?;
        // The first response says that the watch has begun.
        let begun = watch.next().await.ok_or("the watch ended")?;
        begun.map_err(|error| error.to_string())?;
        let values = watch.flat_map(|response| {
            let values: Vec<Result<Bytes, String>> = match &response {
                Ok(response) => {
                    let events = response.events().iter();
                    let kvs = events.filter_map(|event| event.kv());
                    kvs.map(|kv| Ok(Bytes::copy_from_slice(kv.value()))).collect()
                }
                Err(error) => vec![Err(error.to_string())],
            };
            stream::iter(values)
        });
        watches.push(values.boxed());
    }
    Ok(watches)
}

struct EtcdDriver {
    direct: KvClient,
    any: KvClient,
}

impl EtcdDriver {
    async fn operate(&self, operation: Operation) -> Result<Answer, Error> {
        let (mut direct, mut any) = (self.direct.clone(), self.any.clone());
        let found = match operation {
            Operation::Put { key, value } => {
                direct.put(key, value.to_vec(), None).await?;
                true
            }
            Operation::Get { key } => !direct.get(key, None).await?.kvs().is_empty(),
            Operation::EventualGet { key } => {
                let options = GetOptions::new().with_serializable();
                !any.get(key, Some(options)).await?.kvs().is_empty()
            }
            Operation::Scan { key, count } => {
                let options = GetOptions::new().with_from_key().with_limit(i64::from(count));
                !direct.get(key, Some(options)).await?.kvs().is_empty()
            }
            Operation::ReadModifyWrite { key, value } => {
                let read = direct.get(key.as_str(), None).await?;
                let Some(stored) = read.kvs().first() else { return Ok(Answer::Missing) };
                let unchanged =
                    Compare::mod_revision(key.as_str(), CompareOp::Equal, stored.mod_revision());
                let put = TxnOp::put(key, value.to_vec(), None);
                let txn = Txn::new().when([unchanged]).and_then([put]);
                if !direct.txn(txn).await?.succeeded() {
                    return Ok(Answer::Conflict);
                }
                true
            }
            Operation::Transaction { first, records, value, .. } => {
                let keys = [workload::key(first), workload::key((first + 1) % records)];
                let exist = keys
                    .each_ref()
                    .map(|key| Compare::version(key.as_str(), CompareOp::Greater, 0));
                let puts = keys.map(|key| TxnOp::put(key, value.to_vec(), None));
                let txn = Txn::new().when(exist).and_then(puts);
                direct.txn(txn).await?.succeeded()
            }
        };
        Ok(if found { Answer::Done } else { Answer::Missing })
    }
}

impl Driver for EtcdDriver {
    fn run(&self, operation: Operation) -> BoxFuture<'_, Result<Answer, String>> {
        Box::pin(async move { self.operate(operation).await.map_err(|error| error.to_string()) })
    }
}
