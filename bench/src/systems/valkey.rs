//! Valkey: one process. With `appendfsync always` it syncs every write before it answers. Otherwise
//! it writes nothing to disk, which is how it is usually run for speed.
//!
//! Each client has its own connection, and no two requests of a closed loop share a round trip:
//! "unpipelined", as usually quoted. There is no second copy, so this compares speed and not
//! durability. No TLS.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, cmd};

use super::processes::free_ports;
use super::{Answer, Driver, Leader, Processes, Purpose, Setup, System, program, until};
use crate::workload::Operation;

const NAME: &str = "n1";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A running server.
pub(super) struct Valkey {
    processes: Processes,
    program: PathBuf,
    port: u16,
    synced: bool,
}

impl Valkey {
    /// Starts a server and waits until it answers.
    pub(super) async fn start(setup: &Setup, synced: bool) -> Result<Self, String> {
        let [port] = free_ports()?;
        let processes = Processes::new(setup.dir.as_deref())?;
        let mut server = Self { processes, program: program(setup, "valkey-server"), port, synced };
        server.restart(NAME)?;
        server.wait_whole().await?;
        Ok(server)
    }

    async fn connect(&self, timeout: Duration) -> Result<MultiplexedConnection, RedisError> {
        let client = Client::open(("127.0.0.1", self.port))?;
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(timeout))
            .set_connection_timeout(Some(timeout));
        client.get_multiplexed_async_connection_with_config(&config).await
    }
}

impl System for Valkey {
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
            let timeout = match purpose {
                Purpose::Measure => REQUEST_TIMEOUT,
                Purpose::Survive(attempt) => attempt,
            };
            let mut drivers: Vec<Arc<dyn Driver>> = Vec::with_capacity(clients);
            for _ in 0..clients {
                let connection = self.connect(timeout).await.map_err(|error| error.to_string())?;
                drivers.push(Arc::new(ValkeyDriver { connection }));
            }
            Ok(drivers)
        })
    }

    fn leader(&self) -> BoxFuture<'_, Result<Leader, String>> {
        Box::pin(async { Ok(Leader { name: NAME.into(), note: "the only process".into() }) })
    }

    fn restart(&mut self, name: &str) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        command
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", ""])
            .arg("--dir")
            .arg(self.processes.path(""));
        if self.synced {
            command.args(["--appendonly", "yes", "--appendfsync", "always"]);
        } else {
            command.args(["--appendonly", "no"]);
        }
        self.processes.start(name, &mut command)
    }

    fn wait_whole(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(until(&self.processes, || async {
            let mut connection =
                self.connect(REQUEST_TIMEOUT).await.map_err(|error| error.to_string())?;
            let answer = cmd("PING").query_async::<String>(&mut connection).await;
            answer.map(drop).map_err(|error| error.to_string())
        }))
    }
}

struct ValkeyDriver {
    connection: MultiplexedConnection,
}

impl ValkeyDriver {
    async fn operate(&self, operation: Operation) -> Result<Answer, String> {
        // Clones share one connection.
        let mut connection = self.connection.clone();
        let failed = |error: RedisError| error.to_string();
        match operation {
            Operation::Put { key, value } => {
                let mut set = cmd("SET");
                set.arg(key).arg(&value[..]);
                set.query_async::<()>(&mut connection).await.map_err(failed)?;
            }
            // There is one copy, so both kinds of read are the same.
            Operation::Get { key } | Operation::EventualGet { key } => {
                let mut get = cmd("GET");
                let read = get.arg(key).query_async::<Option<redis::Value>>(&mut connection);
                if read.await.map_err(failed)?.is_none() {
                    return Ok(Answer::Missing);
                }
            }
            // Unconditional: a condition would take a script or WATCH.
            Operation::ReadModifyWrite { key, value } => {
                let mut get = cmd("GET");
                let read = get.arg(&key).query_async::<Option<redis::Value>>(&mut connection);
                if read.await.map_err(failed)?.is_none() {
                    return Ok(Answer::Missing);
                }
                let mut set = cmd("SET");
                set.arg(key).arg(&value[..]);
                set.query_async::<()>(&mut connection).await.map_err(failed)?;
            }
            Operation::Scan { .. } => return Err("no ordered keys".into()),
            Operation::Transaction { .. } => return Err("no transactions that are measured".into()),
        }
        Ok(Answer::Done)
    }
}

impl Driver for ValkeyDriver {
    fn run(&self, operation: Operation) -> BoxFuture<'_, Result<Answer, String>> {
        Box::pin(self.operate(operation))
    }
}
