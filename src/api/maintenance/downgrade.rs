//! `Downgrade`: whether one would be allowed. Going through with one is not served: etcd then lowers the version of its
//! storage until the one before can take it over, and none can read what is stored here. So none is ever under way.

use rusd_proto::etcdserverpb as pb;
use tonic::Status;

use crate::api::auth::CallContext;
use crate::api::grpc::body::ReplyBody;
use crate::api::reply::Prost;
use crate::api::{errors, kv, version};
use crate::types::RequestError;

const NOT_SERVED: &str = "rusd: a downgrade is not served, since no etcd reads this data; \
                          restore a snapshot with etcdutl instead";

/// `Downgrade`.
pub(crate) async fn downgrade(call: CallContext, request: pb::DowngradeRequest) -> Result<ReplyBody, Status> {
    match request.action {
        0 => {
            kv::barrier(&call, false).await.map_err(|error| errors::status(&error))?;
            check_target(&request.version)?;
        }
        1 => {
            check_target(&request.version)?;
            return Err(Status::unimplemented(NOT_SERVED));
        }
        // Cancelling with none under way is fine.
        2 => {}
        _ => return Err(errors::status(&RequestError::UnknownMethod)),
    }
    ReplyBody::small(&Prost(pb::DowngradeResponse {
        header: call.message_header(call.reader.revision()),
        version: version::CLUSTER_SHORT.to_owned(),
    }))
}

/// The target must be the minor version before this one.
fn check_target(target: &str) -> Result<(), Status> {
    // Either may be left out: the patch, or what follows it.
    match minor_of(target).or_else(|| minor_of(&format!("{target}.0"))) {
        Some((3, 6)) => Ok(()),
        Some(_) => Err(Status::invalid_argument("etcdserver: invalid downgrade target version")),
        None => Err(Status::invalid_argument("etcdserver: wrong downgrade target version format")),
    }
}

/// Major and minor of a semantic version, as leniently as etcd reads one.
fn minor_of(version: &str) -> Option<(i64, i64)> {
    let (version, build) = version.split_once('+').unwrap_or((version, ""));
    let (numbers, before) = version.split_once('-').unwrap_or((version, ""));
    let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    let mut numbers = numbers.splitn(3, '.').map(|number| number.parse::<i64>().ok());
    let (major, minor, _) = (numbers.next()??, numbers.next()??, numbers.next()??);
    (is_word(before) && is_word(build)).then_some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    // `tests/golden/downgrade.txt` has more of them, as etcd takes them.
    #[test]
    fn only_the_previous_minor_version_is_a_target() {
        for good in ["3.6", "3.6.0", "3.6.9", "03.6", "3.6.0-rc.1", "3.6.0+x"] {
            assert!(check_target(good).is_ok(), "{good}");
        }
        for bad in ["3.5.0", "3.7.0", "2.6"] {
            assert_eq!(check_target(bad).unwrap_err().message(), "etcdserver: invalid downgrade target version");
        }
        for junk in
            ["", "x", "3", "3.6.0.1", "3.-6", "3.6-rc.1", "3.6+x", "v3.6", "3.6.0-rc_1", "3.6.99999999999999999999"]
        {
            assert_eq!(check_target(junk).unwrap_err().message(), "etcdserver: wrong downgrade target version format");
        }
    }
}
