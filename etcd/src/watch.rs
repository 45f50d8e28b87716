//! The service Watch.

use futures::StreamExt;

use crate::context::Context;
use crate::error::EtcdError;
use crate::etcd::{Answers, Etcd, Requests};
use crate::proto::etcdserverpb::{WatchRequest, WatchResponse};

#[allow(missing_docs, reason = "as in the proto file")]
impl Etcd {
    pub fn watch(&self, _: Context, _: Requests<WatchRequest>) -> Answers<WatchResponse> {
        let error = EtcdError::unimplemented("watches are not offered yet");
        futures::stream::once(async { Err(error) }).boxed()
    }
}
