//! `Requests`: the client's messages as the hub's requests.
//!
//! Cut by [`Arrivals`] as those of all other streams, so that the same limits and texts hold.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use http_body::Body as _;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::watch_create_request::FilterType;
use rusd_proto::etcdserverpb::watch_request::RequestUnion;
use tonic::body::Body;
use tonic::{Code, Status};

use super::CreateCheck;
use crate::api::grpc::arrival::Arrivals;
use crate::api::grpc::decode::decode_streamed;
use crate::api::methods::Method;
use crate::api::metrics::RpcMetrics;
use crate::types::KeyRange;
use crate::watch::{CreateWatch, Kinds, StreamEnd, WatchRequest};

/// The request side of one stream.
pub(super) struct Requests {
    messages: Arrivals,
    body: Body,
    counted: Option<Arc<RpcMetrics>>,
    create_check: Option<CreateCheck>,
}

impl Requests {
    pub(super) fn new(
        messages: Arrivals,
        body: Body,
        create_check: Option<CreateCheck>,
        counted: Option<Arc<RpcMetrics>>,
    ) -> Self {
        Self { messages, body, counted, create_check }
    }

    /// The next message that is whole already.
    fn next_message(&mut self) -> Result<Option<pb::WatchRequest>, Status> {
        let Some(message) = self.messages.next()? else { return Ok(None) };
        if let Some(metrics) = &self.counted {
            metrics.received(Method::Watch, message.len());
        }
        decode_streamed(message).map(Some)
    }

    /// `None` for a message without a request: ignored, as in etcd (E99).
    fn convert(&self, message: pb::WatchRequest) -> Option<WatchRequest> {
        Some(match message.request_union? {
            RequestUnion::CreateRequest(create) => {
                let create = create_watch(create);
                let check = self.create_check.as_ref();
                match check.map_or(Ok(()), |check| check(&create.range)) {
                    Ok(()) => WatchRequest::Create(create),
                    Err(status) => WatchRequest::Refuse(go_text(&status)),
                }
            }
            RequestUnion::CancelRequest(cancel) => WatchRequest::Cancel(cancel.watch_id),
            RequestUnion::ProgressRequest(_) => WatchRequest::Progress,
        })
    }
}

impl Stream for Requests {
    type Item = Result<WatchRequest, StreamEnd>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.next_message() {
                Ok(Some(message)) => match self.convert(message) {
                    Some(request) => return Poll::Ready(Some(Ok(request))),
                    None => continue,
                },
                Ok(None) => {}
                Err(status) => return Poll::Ready(Some(Err(end(&status)))),
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                return self.messages.poll_late(cx).map(|status| Some(Err(end(&status))));
            };
            match frame {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.messages.push(data);
                    }
                }
                Some(Err(status)) => return Poll::Ready(Some(Err(end(&status)))),
                None if self.messages.is_partial() => {
                    return Poll::Ready(Some(Err(end(&Status::internal("unexpected EOF")))));
                }
                None => return Poll::Ready(None),
            }
        }
    }
}

fn end(status: &Status) -> StreamEnd {
    StreamEnd { code: i32::from(status.code()), message: status.message().to_owned() }
}

/// Unknown filters are ignored, as in etcd.
fn create_watch(create: pb::WatchCreateRequest) -> CreateWatch {
    let filtered = |filter: FilterType| create.filters.contains(&i32::from(filter));
    CreateWatch {
        kinds: Kinds { puts: !filtered(FilterType::Noput), deletes: !filtered(FilterType::Nodelete) },
        range: KeyRange::from_wire(create.key, create.range_end),
        start_revision: create.start_revision,
        watch_id: create.watch_id,
        prev_kv: create.prev_kv,
        progress_notify: create.progress_notify,
        fragment: create.fragment,
    }
}

/// A status as grpc-go prints it: etcd puts that into `cancel_reason`, and clients compare it.
fn go_text(status: &Status) -> String {
    let code = match status.code() {
        Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    };
    format!("rpc error: code = {code} desc = {}", status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_read_as_grpc_go_prints_them() {
        let denied = Status::permission_denied("etcdserver: permission denied");
        assert_eq!(go_text(&denied), "rpc error: code = PermissionDenied desc = etcdserver: permission denied");
        assert_eq!(go_text(&Status::cancelled("x")), "rpc error: code = Canceled desc = x");
    }

    #[test]
    fn filters_leave_out_kinds_and_unknown_ones_nothing() {
        let kinds = |filters: &[i32]| {
            create_watch(pb::WatchCreateRequest { filters: filters.to_vec(), ..Default::default() }).kinds
        };
        assert_eq!(kinds(&[]), Kinds::ALL);
        assert_eq!(kinds(&[0]), Kinds { puts: false, deletes: true });
        assert_eq!(kinds(&[1, 77]), Kinds { puts: true, deletes: false });
    }
}
