//! dkv through etcd's interface, which each node serves in its own process, with the clients that
//! measure etcd. Clients speak to the node that is the primary, as they do to etcd's leader. No TLS
//! between clients and nodes, mutual TLS between nodes.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::dkv::Dkv;
use super::etcd::{REQUEST_TIMEOUT, drivers, watches};
use super::processes::free_ports;
use super::{Changes, Driver, Leader, Processes, Purpose, Setup, System};

/// A running network.
pub(super) struct DkvEtcd {
    behind: Dkv,
    ports: [u16; 3],
}

impl DkvEtcd {
    /// Starts a network and waits until it is complete.
    pub(super) async fn start(setup: &Setup) -> Result<Self, String> {
        let mut setup = setup.clone();
        setup.dkv_options.nodes = 3;
        // The keyspace behind the interface has one shard, whose primary should be that of the
        // network's only other one: the node that all clients speak to.
        setup.dkv_options.shards = Some(1);
        let ports = free_ports()?;
        let behind = Dkv::start_with(&setup, ports.to_vec()).await?;
        let all = Self { behind, ports };
        // The first request creates the keyspace.
        let client = etcd_client::Client::connect(all.endpoints(), None).await;
        let mut client = client.map_err(|error| error.to_string())?;
        client.put("first", "", None).await.map_err(|error| error.to_string())?;
        Ok(all)
    }

    fn endpoints(&self) -> Vec<String> {
        self.ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect()
    }

    /// Returns the name and the endpoint of the node that is the primary of the keyspace.
    async fn primary(&self) -> Result<(String, String), String> {
        let client = self.behind.client().await?;
        let store = client.keyspace("etcd").await.map_err(|error| error.to_string())?;
        let view = client.refresh().await.map_err(|error| error.to_string())?;
        let shard = view.shards_of(store.keyspace_id()).first().ok_or("it has no shard")?;
        let node = view.nodes.iter().find(|node| Some(node.id) == shard.primary);
        let name = node.ok_or("it has no primary")?.name.clone();
        let number = name.trim_start_matches('n').parse::<usize>().unwrap_or_default();
        let endpoint = self.endpoints().get(number.wrapping_sub(1)).cloned();
        Ok((name, endpoint.ok_or("an unknown node is the primary")?))
    }
}

impl System for DkvEtcd {
    fn processes(&self) -> &Processes {
        self.behind.processes()
    }

    fn processes_mut(&mut self) -> &mut Processes {
        self.behind.processes_mut()
    }

    fn drivers(
        &self,
        clients: usize,
        purpose: Purpose,
    ) -> BoxFuture<'_, Result<Vec<Arc<dyn Driver>>, String>> {
        Box::pin(async move {
            let all = self.endpoints();
            match purpose {
                Purpose::Measure => {
                    let direct = vec![self.primary().await?.1];
                    drivers(&direct, &all, clients, REQUEST_TIMEOUT).await
                }
                Purpose::Survive(attempt) => drivers(&all, &all, clients, attempt).await,
            }
        })
    }

    fn watches(&self, count: usize) -> BoxFuture<'_, Result<Vec<Changes>, String>> {
        Box::pin(async move { watches(&self.primary().await?.1, count).await })
    }

    fn etcd_endpoint(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async move { Ok(self.primary().await?.1) })
    }

    fn leader(&self) -> BoxFuture<'_, Result<Leader, String>> {
        Box::pin(async move {
            let (name, _) = self.primary().await?;
            Ok(Leader { name, note: "primary of the keyspace".into() })
        })
    }

    fn restart(&mut self, name: &str) -> Result<(), String> {
        self.behind.restart(name)
    }

    fn wait_whole(&self) -> BoxFuture<'_, Result<(), String>> {
        self.behind.wait_whole()
    }
}
