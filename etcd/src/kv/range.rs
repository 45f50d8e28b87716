//! Range and RangeStream.

use futures::StreamExt;
use futures::stream;

use crate::context::Context;
use crate::error::{Code, EtcdError};
use crate::etcd::{Answers, Etcd};
use crate::kv::order::{Sorted, bytes_of};
use crate::kv::pages::{Pages, RangeMoment};
use crate::kv::plan::{Part, RangePlan};
use crate::limits::ANSWER_BYTES_MAX;
use crate::proto::etcdserverpb::{RangeRequest, RangeResponse, RangeStreamResponse};

impl Etcd {
    /// Lists a range of keys as of one revision.
    ///
    /// # Errors
    /// The request is malformed; the revision is compacted or not there yet; the answer would be
    /// too long for one message.
    pub async fn range(
        &self,
        context: &Context,
        request: RangeRequest,
    ) -> Result<RangeResponse, EtcdError> {
        let plan = RangePlan::new(&request)?;
        self.check_leader(context).await?;
        let (order, limit, keys_only) = (plan.order, plan.limit, plan.part == Part::Keys);
        let (mut pages, moment) = self.open(plan).await?;
        let failed = |error| self.failed(error);
        let (kvs, more) = match order {
            None => {
                let (mut kvs, mut bytes, mut more) = (Vec::new(), 0, false);
                while let Some(page) = pages.next().await.map_err(failed)? {
                    bytes += page.keys.iter().map(bytes_of).sum::<usize>();
                    check_bytes(context, bytes)?;
                    kvs.extend(page.keys);
                    more = page.more;
                }
                (kvs, more)
            }
            Some(order) => {
                let mut sorted = Sorted::new(order, limit);
                while let Some(page) = pages.next().await.map_err(failed)? {
                    sorted.add(page.keys);
                    check_bytes(context, sorted.bytes())?;
                }
                sorted.finish()
            }
        };
        let mut answer = self.summary(&moment);
        (answer.kvs, answer.more) = (kvs, more);
        if keys_only {
            // They were read for the order, if at all.
            answer.kvs.iter_mut().for_each(|key| key.value.clear());
        }
        Ok(answer)
    }

    /// Lists a range of keys as of one revision, in parts: each has keys, and the last one has the
    /// rest. Only a page is in memory.
    pub fn range_stream(
        &self,
        context: Context,
        request: RangeRequest,
    ) -> Answers<RangeStreamResponse> {
        let etcd = self.clone();
        let opening = async move {
            let plan = RangePlan::new(&request)?;
            if plan.order.is_some() {
                return Err(EtcdError::new(
                    Code::Unimplemented,
                    "RangeStream does not support custom sort orders",
                ));
            }
            if plan.has_filters() {
                return Err(EtcdError::new(
                    Code::Unimplemented,
                    "RangeStream does not support revision filters",
                ));
            }
            etcd.check_leader(&context).await?;
            let (pages, moment) = etcd.open(plan).await?;
            Ok(Parts { etcd, pages, moment, state: PartsState::Keys })
        };
        stream::once(opening)
            .flat_map(|opened| match opened {
                Ok(parts) => stream::unfold(parts, Parts::next).boxed(),
                Err(error) => stream::once(async { Err(error) }).boxed(),
            })
            .boxed()
    }

    async fn open(&self, plan: RangePlan) -> Result<(Pages, RangeMoment), EtcdError> {
        let wanted = match plan.order {
            None => plan.limit.unwrap_or(usize::MAX),
            // The first key of another order may be anywhere.
            Some(_) => usize::MAX,
        };
        let store = self.store().await?;
        Pages::open(store, plan, wanted).await.map_err(|error| self.failed(error))
    }

    fn summary(&self, moment: &RangeMoment) -> RangeResponse {
        RangeResponse {
            header: Some(self.header(&moment.receipt, moment.latest)),
            kvs: Vec::new(),
            more: false,
            count: i64::try_from(moment.count).unwrap_or(i64::MAX),
        }
    }
}

/// The parts of a streamed answer.
struct Parts {
    etcd: Etcd,
    pages: Pages,
    moment: RangeMoment,
    state: PartsState,
}

enum PartsState {
    Keys,
    Ended,
}

impl Parts {
    async fn next(mut self) -> Option<(Result<RangeStreamResponse, EtcdError>, Self)> {
        if matches!(self.state, PartsState::Ended) {
            return None;
        }
        let part = match self.pages.next().await {
            Ok(Some(page)) if !self.pages.is_done() => {
                RangeResponse { kvs: page.keys, ..RangeResponse::default() }
            }
            Ok(last) => {
                self.state = PartsState::Ended;
                let (kvs, more) = last.map_or_else(Default::default, |page| (page.keys, page.more));
                RangeResponse { kvs, more, ..self.etcd.summary(&self.moment) }
            }
            Err(error) => {
                self.state = PartsState::Ended;
                let error = self.etcd.failed(error);
                return Some((Err(error), self));
            }
        };
        Some((Ok(RangeStreamResponse { range_response: Some(part) }), self))
    }
}

/// Checks that an answer fits one message, and that there is memory for it.
fn check_bytes(context: &Context, bytes: usize) -> Result<(), EtcdError> {
    if bytes <= ANSWER_BYTES_MAX {
        return context.take_answer(bytes);
    }
    let why = format!(
        "etcdserver: the answer has more than {} MiB; ask for pages with a limit, or use \
         RangeStream",
        ANSWER_BYTES_MAX / (1024 * 1024)
    );
    Err(EtcdError::new(Code::ResourceExhausted, why))
}
