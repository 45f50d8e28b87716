//! The service Watch.

use tonic::{Request, Response, Status, Streaming};

use super::{Shell, Stream};
use crate::method::Method;
use crate::proto::etcdserverpb::watch_server::Watch;
use crate::proto::etcdserverpb::{WatchRequest, WatchResponse};

#[tonic::async_trait]
impl Watch for Shell {
    type WatchStream = Stream<WatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.bidi_stream(Method::Watch, request, |etcd, context, requests| {
            etcd.watch(context, requests)
        })
    }
}
