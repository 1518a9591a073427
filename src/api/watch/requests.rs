//! `Requests`: the client's messages as the hub's requests.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::watch_create_request::FilterType;
use rusd_proto::etcdserverpb::watch_request::RequestUnion;
use tonic::codec::Streaming;
use tonic::{Code, Status};

use super::CreateCheck;
use crate::types::KeyRange;
use crate::watch::{CreateWatch, Kinds, StreamEnd, WatchRequest};

/// The request side of one stream.
pub(super) struct Requests {
    messages: Streaming<pb::WatchRequest>,
    headers: http::HeaderMap,
    create_check: Option<CreateCheck>,
}

impl Requests {
    pub(super) fn new(
        messages: Streaming<pb::WatchRequest>,
        headers: http::HeaderMap,
        create_check: Option<CreateCheck>,
    ) -> Self {
        Self { messages, headers, create_check }
    }

    /// `None` for a message without a request: ignored, as in etcd (E99).
    fn convert(&self, message: pb::WatchRequest) -> Option<WatchRequest> {
        Some(match message.request_union? {
            RequestUnion::CreateRequest(create) => {
                let create = create_watch(create);
                let check = self.create_check.as_ref();
                match check.map_or(Ok(()), |check| check(&self.headers, &create.range)) {
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
            match Pin::new(&mut self.messages).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    if let Some(request) = self.convert(message) {
                        return Poll::Ready(Some(Ok(request)));
                    }
                }
                Poll::Ready(Some(Err(status))) => {
                    let end = StreamEnd { code: i32::from(status.code()), message: status.message().to_owned() };
                    return Poll::Ready(Some(Err(end)));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
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
