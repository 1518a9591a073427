//! Brings answers into a form that equal servers share.
//!
//! What goes: ids and term in headers, remaining times, the order among equals of a sort (etcd's sort isn't
//! stable) and, when a limit cut through equals, those at the cut.

use rusd_proto::etcdserverpb::request_op::Request;
use rusd_proto::etcdserverpb::response_op::Response;
use rusd_proto::etcdserverpb::{RangeRequest, RangeResponse, RequestOp, ResponseHeader, TxnRequest, TxnResponse};
use rusd_proto::mvccpb::KeyValue;

/// Only the revision of a header is compared; returns it.
pub(crate) fn header(header: &mut Option<ResponseHeader>) -> i64 {
    let Some(header) = header else { return 0 };
    header.cluster_id = 0;
    header.member_id = 0;
    header.raft_term = 0;
    header.revision
}

/// Puts keys that the request's order leaves equal into the order of their names.
pub(crate) fn range(request: &RangeRequest, response: &mut RangeResponse) {
    let Some(rank) = rank(request.sort_target) else { return };
    if response.more
        && let Some(last) = response.kvs.last().map(&rank)
    {
        response.kvs.retain(|kv| rank(kv) != last);
    }
    let kvs = &mut response.kvs[..];
    let mut from = 0;
    while from < kvs.len() {
        let equal = kvs[from..].iter().take_while(|kv| rank(kv) == rank(&kvs[from])).count();
        kvs[from..from + equal].sort_by(|a, b| a.key.cmp(&b.key));
        from += equal;
    }
}

/// The same for each range in a txn that was run.
pub(crate) fn txn(request: &TxnRequest, response: &mut TxnResponse) {
    let operations = if response.succeeded { &request.success } else { &request.failure };
    for (RequestOp { request }, answer) in operations.iter().zip(&mut response.responses) {
        match (request, &mut answer.response) {
            (Some(Request::RequestRange(request)), Some(Response::ResponseRange(answer))) => range(request, answer),
            (Some(Request::RequestTxn(request)), Some(Response::ResponseTxn(answer))) => txn(request, answer),
            _ => {}
        }
    }
}

/// What a key is sorted by.
type Rank = fn(&KeyValue) -> (i64, bytes::Bytes);

/// What a sort target looks at; `None` for the key, which has no equals.
fn rank(target: i32) -> Option<Rank> {
    match target {
        1 => Some(|kv| (kv.version, bytes::Bytes::new())),
        2 => Some(|kv| (kv.create_revision, bytes::Bytes::new())),
        3 => Some(|kv| (kv.mod_revision, bytes::Bytes::new())),
        4 => Some(|kv| (0, kv.value.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &'static str, value: &'static str) -> KeyValue {
        KeyValue { key: key.into(), value: value.into(), ..KeyValue::default() }
    }

    fn keys(target: i32, more: bool, kvs: &[KeyValue]) -> Vec<bytes::Bytes> {
        let request = RangeRequest { sort_target: target, ..RangeRequest::default() };
        let mut response = RangeResponse { kvs: kvs.to_vec(), more, ..RangeResponse::default() };
        range(&request, &mut response);
        response.kvs.into_iter().map(|kv| kv.key).collect()
    }

    #[test]
    fn only_equals_change_places() {
        let kvs = [kv("b", "1"), kv("a", "1"), kv("z", "0"), kv("c", "2"), kv("b2", "2")];
        assert_eq!(keys(4, false, &kvs), ["a", "b", "z", "b2", "c"]);
        assert_eq!(keys(0, false, &kvs), ["b", "a", "z", "c", "b2"]);
    }

    #[test]
    fn equals_at_the_cut_are_left_out() {
        assert_eq!(keys(4, true, &[kv("b", "1"), kv("a", "1"), kv("z", "2")]), ["a", "b"]);
        assert_eq!(keys(0, true, &[kv("b", "1"), kv("a", "1")]), ["b", "a"]);
    }
}
