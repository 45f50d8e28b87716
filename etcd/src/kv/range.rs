//! Range and RangeStream.

use futures::StreamExt;

use crate::context::Context;
use crate::error::EtcdError;
use crate::etcd::{Answers, Etcd};
use crate::proto::etcdserverpb::{RangeRequest, RangeResponse, RangeStreamResponse};

impl Etcd {
    /// Lists a range of keys.
    pub async fn range(&self, _: &Context, _: RangeRequest) -> Result<RangeResponse, EtcdError> {
        Err(EtcdError::unimplemented("reads are not offered yet"))
    }

    /// Lists a range of keys, in parts.
    pub fn range_stream(&self, _: Context, _: RangeRequest) -> Answers<RangeStreamResponse> {
        let error = EtcdError::unimplemented("reads are not offered yet");
        futures::stream::once(async { Err(error) }).boxed()
    }
}
