//! `Alarm`: a get is a linearizable read, the others go through the log. An unknown action is refused
//! (etcd 3.7.1 ends with a panic at it).

use rusd_proto::etcdserverpb as pb;
use tonic::Status;

use crate::api::auth::CallContext;
use crate::api::grpc::body::ReplyBody;
use crate::api::reply::Prost;
use crate::api::{errors, kv};
use crate::apply::{self, AlarmKind, AlarmOp, Command, Response};
use crate::types::{MemberId, RequestError};

/// `Alarm`.
pub(crate) async fn alarm(call: CallContext, request: pb::AlarmRequest) -> Result<ReplyBody, Status> {
    if !(0..=2).contains(&request.action) {
        return Err(Status::invalid_argument(format!("rusd: no alarm action has the number {}", request.action)));
    }
    let (alarms, revision) = run(&call, &request).await.map_err(|error| errors::status(&error))?;
    let alarms = alarms
        .into_iter()
        .map(|(member, kind)| pb::AlarmMember { member_id: member.get(), alarm: kind_number(kind) })
        .collect();
    let reply = Prost(pb::AlarmResponse { header: call.message_header(revision), alarms });
    match request.action {
        0 => ReplyBody::message(&reply, &call.budgets.answers),
        _ => ReplyBody::done(&reply, &call.budgets.answers),
    }
}

type Alarms = Vec<(MemberId, AlarmKind)>;

async fn run(call: &CallContext, request: &pb::AlarmRequest) -> Result<(Alarms, i64), RequestError> {
    let mut kind = match request.alarm {
        1 => Some(AlarmKind::NoSpace),
        2 => Some(AlarmKind::Corrupt),
        _ => None,
    };
    let activate = match request.action {
        0 => {
            kv::barrier_as_logged(call).await?;
            call.check_known()?;
            // Kind 0 asks for all; an unknown kind names alarms that nobody has.
            let known = request.alarm == 0 || kind.is_some();
            let raised = call.alarms.load();
            let list = if known { listed(&raised, kind) } else { Vec::new() };
            return Ok((list, call.reader.revision()));
        }
        action => action == 1,
    };
    let raised = call.alarms.load();
    let is_raised = |kind| raised.list(Some(kind)).iter().any(|(member, _)| member.get() == request.member_id);
    // Clients see one kind of alarm where there are two; whoever clears it means the one that they see.
    if !activate && kind == Some(AlarmKind::Corrupt) && !is_raised(AlarmKind::Corrupt) && is_raised(AlarmKind::Diverged)
    {
        kind = Some(AlarmKind::Diverged);
    }
    let command = Command::Alarm(AlarmOp { activate, member: MemberId(request.member_id), kind });
    match kv::propose(call, command).await? {
        (Response::Alarm(alarms), revision) => Ok((alarms, revision)),
        (other, _) => Err(kv::unexpected("an alarm", &other)),
    }
}

/// The alarms of a kind as clients see them: one of each for a member.
fn listed(raised: &apply::Alarms, kind: Option<AlarmKind>) -> Alarms {
    let shown = |(_, raised): &(MemberId, AlarmKind)| kind.is_none_or(|kind| kind_number(kind) == kind_number(*raised));
    let mut list: Alarms = raised.list(None).into_iter().filter(shown).collect();
    list.dedup_by_key(|(member, kind)| (*member, kind_number(*kind)));
    list
}

/// The wire's number of a kind.
fn kind_number(kind: AlarmKind) -> i32 {
    match kind {
        AlarmKind::NoSpace => 1,
        AlarmKind::Corrupt | AlarmKind::Diverged => 2,
    }
}

/// The wire's name of a kind.
pub(crate) fn kind_name(kind: AlarmKind) -> &'static str {
    match kind {
        AlarmKind::NoSpace => "NOSPACE",
        AlarmKind::Corrupt | AlarmKind::Diverged => "CORRUPT",
    }
}
