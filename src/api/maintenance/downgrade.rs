//! `Downgrade`: whether one would be allowed. Going through with one is not served.

use rusd_proto::etcdserverpb as pb;
use tonic::Status;

use crate::api::auth::CallContext;
use crate::api::grpc::body::ReplyBody;
use crate::api::reply::Prost;
use crate::api::{errors, kv, version};
use crate::types::RequestError;

/// `Downgrade`.
pub(crate) async fn downgrade(call: CallContext, request: pb::DowngradeRequest) -> Result<ReplyBody, Status> {
    match request.action {
        0 => {
            kv::barrier(&call, false).await.map_err(|error| errors::status(&error))?;
            check_target(&request.version)?;
        }
        1 => {
            check_target(&request.version)?;
            return Err(errors::not_served("a downgrade"));
        }
        // Cancelling with none under way is fine.
        2 => {}
        _ => return Err(errors::status(&RequestError::UnknownMethod)),
    }
    Ok(ReplyBody::unary(&Prost(pb::DowngradeResponse {
        header: call.message_header(call.reader.revision()),
        version: version::CLUSTER_SHORT.to_owned(),
    })))
}

/// The target must be the minor version before this one.
fn check_target(target: &str) -> Result<(), Status> {
    let wrong = || Status::invalid_argument("etcdserver: wrong downgrade target version format");
    let numbers: Vec<u64> =
        target.split('.').map(|part| part.parse().map_err(|_| wrong())).collect::<Result<_, _>>()?;
    match numbers[..] {
        [3, 6] | [3, 6, 0] => Ok(()),
        [_, _] | [_, _, _] => Err(Status::invalid_argument("etcdserver: invalid downgrade target version")),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_previous_minor_version_is_a_target() {
        assert!(check_target("3.6").is_ok());
        assert!(check_target("3.6.0").is_ok());
        for bad in ["3.5.0", "3.7.0"] {
            assert_eq!(check_target(bad).unwrap_err().message(), "etcdserver: invalid downgrade target version");
        }
        for junk in ["", "x", "3", "3.6.0.1", "3.-6"] {
            assert_eq!(check_target(junk).unwrap_err().message(), "etcdserver: wrong downgrade target version format");
        }
    }
}
