//! The table of methods: their names for gRPC and metrics, and their paths for JSON.

/// How many messages a method takes and returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One, and one.
    Unary,
    /// One, and a stream.
    ServerStream,
    /// A stream, and a stream.
    BidiStream,
}

impl Kind {
    /// Returns the name that metrics of gRPC give it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

struct Row {
    service: &'static str,
    name: &'static str,
    kind: Kind,
    paths: &'static [&'static str],
}

macro_rules! methods {
    ($($method:ident $service:literal $name:literal $kind:ident $($path:literal)*;)*) => {
        /// A method of etcd's interface.
        #[allow(missing_docs, reason = "the table says it")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Method { $($method),* }

        impl Method {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$method),*];

            fn row(self) -> Row {
                match self {
                    $(Self::$method => Row {
                        service: $service,
                        name: $name,
                        kind: Kind::$kind,
                        paths: &[$($path),*],
                    },)*
                }
            }

            /// Returns the method that the JSON gateway has at a path, as `/v3/kv/range`.
            pub fn at_path(path: &str) -> Option<Self> {
                match path {
                    $($($path => Some(Self::$method),)*)*
                    _ => None,
                }
            }
        }
    };
}

#[rustfmt::skip]
methods! {
    Range "etcdserverpb.KV" "Range" Unary "/v3/kv/range";
    RangeStream "etcdserverpb.KV" "RangeStream" ServerStream;
    Put "etcdserverpb.KV" "Put" Unary "/v3/kv/put";
    DeleteRange "etcdserverpb.KV" "DeleteRange" Unary "/v3/kv/deleterange";
    Txn "etcdserverpb.KV" "Txn" Unary "/v3/kv/txn";
    Compact "etcdserverpb.KV" "Compact" Unary "/v3/kv/compaction";
    Watch "etcdserverpb.Watch" "Watch" BidiStream "/v3/watch";
    LeaseGrant "etcdserverpb.Lease" "LeaseGrant" Unary "/v3/lease/grant";
    LeaseRevoke "etcdserverpb.Lease" "LeaseRevoke" Unary "/v3/lease/revoke" "/v3/kv/lease/revoke";
    LeaseKeepAlive "etcdserverpb.Lease" "LeaseKeepAlive" BidiStream "/v3/lease/keepalive";
    LeaseTimeToLive "etcdserverpb.Lease" "LeaseTimeToLive" Unary
        "/v3/lease/timetolive" "/v3/kv/lease/timetolive";
    LeaseLeases "etcdserverpb.Lease" "LeaseLeases" Unary "/v3/lease/leases" "/v3/kv/lease/leases";
    MemberAdd "etcdserverpb.Cluster" "MemberAdd" Unary "/v3/cluster/member/add";
    MemberRemove "etcdserverpb.Cluster" "MemberRemove" Unary "/v3/cluster/member/remove";
    MemberUpdate "etcdserverpb.Cluster" "MemberUpdate" Unary "/v3/cluster/member/update";
    MemberList "etcdserverpb.Cluster" "MemberList" Unary "/v3/cluster/member/list";
    MemberPromote "etcdserverpb.Cluster" "MemberPromote" Unary "/v3/cluster/member/promote";
    Alarm "etcdserverpb.Maintenance" "Alarm" Unary "/v3/maintenance/alarm";
    Status "etcdserverpb.Maintenance" "Status" Unary "/v3/maintenance/status";
    Defragment "etcdserverpb.Maintenance" "Defragment" Unary "/v3/maintenance/defragment";
    Hash "etcdserverpb.Maintenance" "Hash" Unary "/v3/maintenance/hash";
    HashKv "etcdserverpb.Maintenance" "HashKV" Unary "/v3/maintenance/hashkv";
    Snapshot "etcdserverpb.Maintenance" "Snapshot" ServerStream "/v3/maintenance/snapshot";
    MoveLeader "etcdserverpb.Maintenance" "MoveLeader" Unary "/v3/maintenance/transfer-leadership";
    Downgrade "etcdserverpb.Maintenance" "Downgrade" Unary "/v3/maintenance/downgrade";
    AuthEnable "etcdserverpb.Auth" "AuthEnable" Unary "/v3/auth/enable";
    AuthDisable "etcdserverpb.Auth" "AuthDisable" Unary "/v3/auth/disable";
    AuthStatus "etcdserverpb.Auth" "AuthStatus" Unary "/v3/auth/status";
    Authenticate "etcdserverpb.Auth" "Authenticate" Unary "/v3/auth/authenticate";
    UserAdd "etcdserverpb.Auth" "UserAdd" Unary "/v3/auth/user/add";
    UserGet "etcdserverpb.Auth" "UserGet" Unary "/v3/auth/user/get";
    UserList "etcdserverpb.Auth" "UserList" Unary "/v3/auth/user/list";
    UserDelete "etcdserverpb.Auth" "UserDelete" Unary "/v3/auth/user/delete";
    UserChangePassword "etcdserverpb.Auth" "UserChangePassword" Unary "/v3/auth/user/changepw";
    UserGrantRole "etcdserverpb.Auth" "UserGrantRole" Unary "/v3/auth/user/grant";
    UserRevokeRole "etcdserverpb.Auth" "UserRevokeRole" Unary "/v3/auth/user/revoke";
    RoleAdd "etcdserverpb.Auth" "RoleAdd" Unary "/v3/auth/role/add";
    RoleGet "etcdserverpb.Auth" "RoleGet" Unary "/v3/auth/role/get";
    RoleList "etcdserverpb.Auth" "RoleList" Unary "/v3/auth/role/list";
    RoleDelete "etcdserverpb.Auth" "RoleDelete" Unary "/v3/auth/role/delete";
    RoleGrantPermission "etcdserverpb.Auth" "RoleGrantPermission" Unary "/v3/auth/role/grant";
    RoleRevokePermission "etcdserverpb.Auth" "RoleRevokePermission" Unary "/v3/auth/role/revoke";
    Lock "v3lockpb.Lock" "Lock" Unary "/v3/lock/lock";
    Unlock "v3lockpb.Lock" "Unlock" Unary "/v3/lock/unlock";
    Campaign "v3electionpb.Election" "Campaign" Unary "/v3/election/campaign";
    Proclaim "v3electionpb.Election" "Proclaim" Unary "/v3/election/proclaim";
    Leader "v3electionpb.Election" "Leader" Unary "/v3/election/leader";
    Observe "v3electionpb.Election" "Observe" ServerStream "/v3/election/observe";
    Resign "v3electionpb.Election" "Resign" Unary "/v3/election/resign";
}

impl Method {
    /// Returns the full name of its service.
    pub fn service(self) -> &'static str {
        self.row().service
    }

    /// Returns its name within the service.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Returns how many messages it takes and returns.
    pub fn kind(self) -> Kind {
        self.row().kind
    }

    /// Returns its paths in the JSON gateway.
    pub fn paths(self) -> &'static [&'static str] {
        self.row().paths
    }
}
