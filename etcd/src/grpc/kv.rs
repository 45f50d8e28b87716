//! The service KV.

use tonic::{Request, Response, Status};

use super::{Shell, Stream, unary_methods};
use crate::method::Method;
use crate::proto::etcdserverpb::kv_server::Kv;
use crate::proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, TxnRequest, TxnResponse,
};

#[tonic::async_trait]
impl Kv for Shell {
    type RangeStreamStream = Stream<RangeStreamResponse>;

    async fn range_stream(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        self.server_stream(Method::RangeStream, request, |etcd, context, message| {
            etcd.range_stream(context, message)
        })
    }

    unary_methods! {
        Range range(RangeRequest) -> RangeResponse;
        Put put(PutRequest) -> PutResponse;
        DeleteRange delete_range(DeleteRangeRequest) -> DeleteRangeResponse;
        Txn txn(TxnRequest) -> TxnResponse;
        Compact compact(CompactionRequest) -> CompactionResponse;
    }
}
