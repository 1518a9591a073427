//! The few calls that every test under faults makes, to one member or to several.

use std::time::Duration;

use bytes::Bytes;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader};
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Error};

/// No call takes longer than this; a server that hangs is then found as one that doesn't answer.
const CALL_MAX: Duration = Duration::from_secs(20);

pub(crate) async fn connect(url: &str) -> Result<Channel, Error> {
    let endpoint = Endpoint::from_shared(url.to_owned())?;
    endpoint.timeout(CALL_MAX).connect_timeout(Duration::from_secs(2)).tcp_nodelay(true).connect().await
}

pub(crate) fn header(header: Option<ResponseHeader>) -> ResponseHeader {
    header.expect("every answer has a header")
}

/// The revision that a linearizable read sees.
pub(crate) async fn revision(channel: &Channel) -> Result<i64, Status> {
    let request = RangeRequest { key: Bytes::from_static(b"none"), ..RangeRequest::default() };
    let answer = KvClient::new(channel.clone()).range(request).await?.into_inner();
    Ok(header(answer.header).revision)
}

/// Everything as it was at a revision (0 for now).
pub(crate) async fn everything(channel: &Channel, revision: i64) -> Result<RangeResponse, Status> {
    let all = Bytes::from_static(b"\0");
    let request = RangeRequest { key: all.clone(), range_end: all, revision, ..RangeRequest::default() };
    let mut client = KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
    Ok(client.range(request).await?.into_inner())
}
