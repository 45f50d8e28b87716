//! What a client can ask about the network: the view, and the placement of replicas.

use std::time::Duration;

use dkv_wire::message::{Answer, Placement, RequestBody};
use dkv_wire::network::NetworkView;
use tokio::time::Instant;

use super::{Client, wrong_answer};
use crate::error::Error;
use crate::router::RequestKind;

/// Time between two attempts to get the first view.
const VIEW_EVERY: Duration = Duration::from_millis(200);
/// Time that the coordinator has to answer before the server is asked for its view.
const REFRESH_TIMEOUT: Duration = Duration::from_millis(500);

impl Client {
    /// Returns the network as this client last saw it. Waits for the first view.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if there is none in time, because the network has not been
    /// bootstrapped or neither the server nor a node answers.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// for node in client.view().await?.nodes {
    ///     println!("{} at {} is {}", node.name, node.address, node.state);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn view(&self) -> Result<NetworkView, Error> {
        let deadline = Instant::now() + self.inner.timeout;
        loop {
            if let Some(view) = self.cached_view() {
                return Ok(view);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let failed = match self.inner.driver.lookup(left).await {
                Ok(()) => continue,
                Err(error) => error.to_string(),
            };
            if deadline.saturating_duration_since(Instant::now()) <= VIEW_EVERY {
                return Err(Error::Unavailable(failed));
            }
            tokio::time::sleep(VIEW_EVERY).await;
        }
    }

    /// Asks the coordinator, or else the server, for the newest view and returns it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if neither answers or the network has not been bootstrapped.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let view = client.refresh().await?;
    /// println!("{} shards", view.shards.len());
    /// # Ok(()) }
    /// ```
    pub async fn refresh(&self) -> Result<NetworkView, Error> {
        if self.cached_view().is_none() {
            return self.view().await;
        }
        let asked =
            self.request(RequestKind::Control(RequestBody::View), Some(REFRESH_TIMEOUT)).await;
        match asked {
            Ok(_) => self.view().await,
            Err(error) => match self.inner.driver.lookup(self.inner.timeout).await {
                Ok(()) => self.view().await,
                Err(_) => Err(error),
            },
        }
    }

    pub(crate) fn cached_view(&self) -> Option<NetworkView> {
        self.inner.driver.with(|router, _| router.view().map(|view| (**view).clone()))
    }

    /// Returns where replicas are and which are moving; with `forecast` also what a
    /// [`rebalance`](Self::rebalance) would do.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the coordinator does not answer.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let placement = client.placement(true).await?;
    /// println!("{placement:?}");
    /// # Ok(()) }
    /// ```
    pub async fn placement(&self, forecast: bool) -> Result<Placement, Error> {
        match self.request(RequestKind::Control(RequestBody::Placement { forecast }), None).await? {
            Answer::Placement(placement) => Ok(*placement),
            _ => Err(wrong_answer()),
        }
    }
}
