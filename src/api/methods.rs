//! Every method that the client port knows: path, kind, and its number in the tables of counters.
//!
//! One list makes the enum, the lookup by path and the names for metrics, so that a method can't
//! be served without being counted, nor be known to one of them only.

/// How messages flow in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One request, one answer.
    Unary,
    /// One request, many answers.
    ServerStream,
    /// Many of both.
    BidiStream,
}

impl Kind {
    /// The value of the `grpc_type` label.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

macro_rules! methods {
    ($($id:ident = $service:literal / $name:literal $kind:ident;)*) => {
        /// A method of the client port.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Method { $(#[doc = concat!($service, "/", $name)] $id,)* }

        impl Method {
            /// All of them, in the order of their numbers.
            pub(crate) const ALL: &[Self] = &[$(Self::$id,)*];

            /// The method of a request's path.
            pub(crate) fn of_path(path: &str) -> Option<Self> {
                match path {
                    $(concat!("/", $service, "/", $name) => Some(Self::$id),)*
                    _ => None,
                }
            }

            /// Its service, name and kind.
            pub(crate) const fn parts(self) -> (&'static str, &'static str, Kind) {
                match self { $(Self::$id => ($service, $name, Kind::$kind),)* }
            }
        }
    };
}

methods! {
    KvRange = "etcdserverpb.KV" / "Range" Unary;
    KvPut = "etcdserverpb.KV" / "Put" Unary;
    KvTxn = "etcdserverpb.KV" / "Txn" Unary;
    KvDeleteRange = "etcdserverpb.KV" / "DeleteRange" Unary;
    KvCompact = "etcdserverpb.KV" / "Compact" Unary;
    KvRangeStream = "etcdserverpb.KV" / "RangeStream" ServerStream;
    Watch = "etcdserverpb.Watch" / "Watch" BidiStream;
    LeaseGrant = "etcdserverpb.Lease" / "LeaseGrant" Unary;
    LeaseRevoke = "etcdserverpb.Lease" / "LeaseRevoke" Unary;
    LeaseKeepAlive = "etcdserverpb.Lease" / "LeaseKeepAlive" BidiStream;
    LeaseTimeToLive = "etcdserverpb.Lease" / "LeaseTimeToLive" Unary;
    LeaseLeases = "etcdserverpb.Lease" / "LeaseLeases" Unary;
    MemberAdd = "etcdserverpb.Cluster" / "MemberAdd" Unary;
    MemberRemove = "etcdserverpb.Cluster" / "MemberRemove" Unary;
    MemberUpdate = "etcdserverpb.Cluster" / "MemberUpdate" Unary;
    MemberList = "etcdserverpb.Cluster" / "MemberList" Unary;
    MemberPromote = "etcdserverpb.Cluster" / "MemberPromote" Unary;
    Alarm = "etcdserverpb.Maintenance" / "Alarm" Unary;
    Status = "etcdserverpb.Maintenance" / "Status" Unary;
    Defragment = "etcdserverpb.Maintenance" / "Defragment" Unary;
    Hash = "etcdserverpb.Maintenance" / "Hash" Unary;
    HashKv = "etcdserverpb.Maintenance" / "HashKV" Unary;
    Snapshot = "etcdserverpb.Maintenance" / "Snapshot" ServerStream;
    MoveLeader = "etcdserverpb.Maintenance" / "MoveLeader" Unary;
    Downgrade = "etcdserverpb.Maintenance" / "Downgrade" Unary;
    AuthEnable = "etcdserverpb.Auth" / "AuthEnable" Unary;
    AuthDisable = "etcdserverpb.Auth" / "AuthDisable" Unary;
    AuthStatus = "etcdserverpb.Auth" / "AuthStatus" Unary;
    Authenticate = "etcdserverpb.Auth" / "Authenticate" Unary;
    UserAdd = "etcdserverpb.Auth" / "UserAdd" Unary;
    UserGet = "etcdserverpb.Auth" / "UserGet" Unary;
    UserList = "etcdserverpb.Auth" / "UserList" Unary;
    UserDelete = "etcdserverpb.Auth" / "UserDelete" Unary;
    UserChangePassword = "etcdserverpb.Auth" / "UserChangePassword" Unary;
    UserGrantRole = "etcdserverpb.Auth" / "UserGrantRole" Unary;
    UserRevokeRole = "etcdserverpb.Auth" / "UserRevokeRole" Unary;
    RoleAdd = "etcdserverpb.Auth" / "RoleAdd" Unary;
    RoleGet = "etcdserverpb.Auth" / "RoleGet" Unary;
    RoleList = "etcdserverpb.Auth" / "RoleList" Unary;
    RoleDelete = "etcdserverpb.Auth" / "RoleDelete" Unary;
    RoleGrantPermission = "etcdserverpb.Auth" / "RoleGrantPermission" Unary;
    RoleRevokePermission = "etcdserverpb.Auth" / "RoleRevokePermission" Unary;
    Lock = "v3lockpb.Lock" / "Lock" Unary;
    Unlock = "v3lockpb.Lock" / "Unlock" Unary;
    Campaign = "v3electionpb.Election" / "Campaign" Unary;
    Proclaim = "v3electionpb.Election" / "Proclaim" Unary;
    Leader = "v3electionpb.Election" / "Leader" Unary;
    Observe = "v3electionpb.Election" / "Observe" ServerStream;
    Resign = "v3electionpb.Election" / "Resign" Unary;
    HealthCheck = "grpc.health.v1.Health" / "Check" Unary;
    HealthList = "grpc.health.v1.Health" / "List" Unary;
    HealthWatch = "grpc.health.v1.Health" / "Watch" ServerStream;
}

impl Method {
    /// Its place in tables.
    pub(crate) const fn number(self) -> usize {
        self as usize
    }
}

/// What grpc-go says to a path that it doesn't know.
pub(crate) fn unknown(path: &str) -> tonic::Status {
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.rsplit_once('/')) else {
        return tonic::Status::unimplemented(format!("malformed method name: \"{path}\""));
    };
    if Method::ALL.iter().any(|known| known.parts().0 == service) {
        tonic::Status::unimplemented(format!("unknown method {method} for service {service}"))
    } else {
        tonic::Status::unimplemented(format!("unknown service {service}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_their_methods() {
        for (number, method) in Method::ALL.iter().enumerate() {
            let (service, name, _) = method.parts();
            assert_eq!(Method::of_path(&format!("/{service}/{name}")), Some(*method));
            assert_eq!(method.number(), number);
        }
        assert_eq!(Method::of_path("/etcdserverpb.KV/range"), None);
    }

    #[test]
    fn unknown_paths_are_told_as_grpc_go_tells_them() {
        assert_eq!(unknown("/etcdserverpb.KV/Nope").message(), "unknown method Nope for service etcdserverpb.KV");
        assert_eq!(
            unknown("/grpc.reflection.v1.ServerReflection/Info").message(),
            "unknown service grpc.reflection.v1.ServerReflection"
        );
        assert_eq!(unknown("/x").message(), "malformed method name: \"/x\"");
        assert_eq!(unknown("/x").code(), tonic::Code::Unimplemented);
    }
}
