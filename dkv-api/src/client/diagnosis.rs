//! What the processes of a network log, and the circumstances of its nodes.

use std::time::Duration;

use dkv_base::id::NodeId;
use dkv_wire::message::{
    Answer, Diagnosis, LogChange, LogFilter, RequestBody, ServerAnswer, ServerRequest,
};

use super::{Client, wrong_answer};
use crate::error::Error;
use crate::router::RequestKind;

/// Time that a node has to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

impl Client {
    /// Returns what a node logs, after a change of that if there is one.
    ///
    /// Requires [`Role::Admin`](crate::Role::Admin).
    ///
    /// # Errors
    /// [`Error::Denied`] without that role; [`Error::Invalid`] if the filter is misspelt;
    /// [`Error::Unavailable`] if the node does not answer.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::LogChange;
    ///
    /// # async fn example(client: &dkv_api::Client, node: dkv_api::NodeId)
    /// #     -> Result<(), dkv_api::Error> {
    /// let change = LogChange { filter: "debug".into(), for_ms: Some(60_000) };
    /// println!("{}", client.node_log(node, Some(change)).await?.filter);
    /// # Ok(()) }
    /// ```
    pub async fn node_log(
        &self,
        node: NodeId,
        change: Option<LogChange>,
    ) -> Result<LogFilter, Error> {
        let kind = RequestKind::Direct { node, body: RequestBody::Log(change) };
        match self.request(kind, Some(ANSWER_TIMEOUT)).await? {
            Answer::Log(filter) => Ok(filter),
            _ => Err(wrong_answer()),
        }
    }

    /// Returns what the registration server logs, after a change of that if there is one.
    ///
    /// Requires [`Role::Admin`](crate::Role::Admin).
    ///
    /// # Errors
    /// [`Error::Denied`] without that role; [`Error::Invalid`] if the filter is misspelt;
    /// [`Error::Unavailable`] if the server does not answer.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// println!("{}", client.server_log(None).await?.filter);
    /// # Ok(()) }
    /// ```
    pub async fn server_log(&self, change: Option<LogChange>) -> Result<LogFilter, Error> {
        match self.ask_server(ServerRequest::Log(change)).await? {
            ServerAnswer::Log(filter) => Ok(filter),
            _ => Err(wrong_answer()),
        }
    }

    /// Returns the circumstances of a node: its clock, its disk, its files, its certificate, and
    /// the last changes of leader that it saw.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the node does not answer.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client, node: dkv_api::NodeId)
    /// #     -> Result<(), dkv_api::Error> {
    /// for change in client.diagnose(node).await?.leader_changes {
    ///     println!("shard {} has another primary: {}", change.group, change.why);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn diagnose(&self, node: NodeId) -> Result<Diagnosis, Error> {
        let kind = RequestKind::Direct { node, body: RequestBody::Diagnose };
        match self.request(kind, Some(ANSWER_TIMEOUT)).await? {
            Answer::Diagnosis(diagnosis) => Ok(*diagnosis),
            _ => Err(wrong_answer()),
        }
    }
}
