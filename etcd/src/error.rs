//! The errors of etcd's interface: one table of codes and texts, which clients match to the letter.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use dkv_api::Error;

/// The code of an error; its number is that of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Code {
    /// No error.
    Ok = 0,
    /// The caller went away.
    Canceled = 1,
    /// An error without a code of its own.
    Unknown = 2,
    /// The request can never succeed.
    InvalidArgument = 3,
    /// The time limit of the request has passed.
    DeadlineExceeded = 4,
    /// Something that the request names does not exist.
    NotFound = 5,
    /// Something that the request creates exists.
    AlreadyExists = 6,
    /// The caller may not do this.
    PermissionDenied = 7,
    /// A quota is used up.
    ResourceExhausted = 8,
    /// The state of the system does not allow it.
    FailedPrecondition = 9,
    /// A conflict with another request.
    Aborted = 10,
    /// A revision or a time is out of bounds.
    OutOfRange = 11,
    /// There is no such method.
    Unimplemented = 12,
    /// A rule of the system is broken.
    Internal = 13,
    /// Not now.
    Unavailable = 14,
    /// Data is lost.
    DataLoss = 15,
    /// The caller has to say who it is.
    Unauthenticated = 16,
}

impl Code {
    /// All codes, in the order of their numbers.
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::Canceled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// Returns the name that metrics of gRPC give it.
    pub fn name(self) -> String {
        match self {
            Self::Ok => "OK".to_owned(),
            code => format!("{code:?}"),
        }
    }

    /// Returns the status that the JSON gateway answers with.
    pub fn http_status(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::Canceled => 499,
            Self::InvalidArgument | Self::FailedPrecondition | Self::OutOfRange => 400,
            Self::DeadlineExceeded => 504,
            Self::NotFound => 404,
            Self::AlreadyExists | Self::Aborted => 409,
            Self::PermissionDenied => 403,
            Self::ResourceExhausted => 429,
            Self::Unimplemented => 501,
            Self::Unavailable => 503,
            Self::Unauthenticated => 401,
            Self::Unknown | Self::Internal | Self::DataLoss => 500,
        }
    }
}

/// An error as etcd's clients know it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EtcdError {
    code: Code,
    message: Cow<'static, str>,
}

macro_rules! errors {
    ($($name:ident $code:ident $message:literal;)*) => {
        #[allow(missing_docs, reason = "the text says it")]
        impl EtcdError {
            $(pub const $name: Self =
                Self { code: Code::$code, message: Cow::Borrowed($message) };)*

            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

// In the order of etcd's `api/v3rpc/rpctypes/error.go`.
#[rustfmt::skip]
errors! {
    EMPTY_KEY InvalidArgument "etcdserver: key is not provided";
    KEY_NOT_FOUND InvalidArgument "etcdserver: key not found";
    VALUE_PROVIDED InvalidArgument "etcdserver: value is provided";
    LEASE_PROVIDED InvalidArgument "etcdserver: lease is provided";
    TOO_MANY_OPS InvalidArgument "etcdserver: too many operations in txn request";
    DUPLICATE_KEY InvalidArgument "etcdserver: duplicate key given in txn request";
    INVALID_CLIENT_API_VERSION InvalidArgument "etcdserver: invalid client api version";
    INVALID_SORT_OPTION InvalidArgument "etcdserver: invalid sort option";
    COMPACTED OutOfRange "etcdserver: mvcc: required revision has been compacted";
    FUTURE_REV OutOfRange "etcdserver: mvcc: required revision is a future revision";
    NO_SPACE ResourceExhausted "etcdserver: mvcc: database space exceeded";
    LEASE_NOT_FOUND NotFound "etcdserver: requested lease not found";
    LEASE_EXIST FailedPrecondition "etcdserver: lease already exists";
    LEASE_TTL_TOO_LARGE OutOfRange "etcdserver: too large lease TTL";
    WATCH_CANCELED Canceled "etcdserver: watch canceled";
    MEMBER_EXIST FailedPrecondition "etcdserver: member ID already exist";
    PEER_URL_EXIST FailedPrecondition "etcdserver: Peer URLs already exists";
    MEMBER_NOT_ENOUGH_STARTED FailedPrecondition
        "etcdserver: re-configuration failed due to not enough started members";
    MEMBER_BAD_URLS InvalidArgument "etcdserver: given member URLs are invalid";
    MEMBER_NOT_FOUND NotFound "etcdserver: member not found";
    MEMBER_NOT_LEARNER FailedPrecondition "etcdserver: can only promote a learner member";
    LEARNER_NOT_READY FailedPrecondition
        "etcdserver: can only promote a learner member which is in sync with leader";
    TOO_MANY_LEARNERS FailedPrecondition "etcdserver: too many learner members in cluster";
    CLUSTER_ID_MISMATCH FailedPrecondition "etcdserver: cluster ID mismatch";
    REQUEST_TOO_LARGE InvalidArgument "etcdserver: request is too large";
    REQUEST_TOO_MANY_REQUESTS ResourceExhausted "etcdserver: too many requests";
    ROOT_USER_NOT_EXIST FailedPrecondition "etcdserver: root user does not exist";
    ROOT_ROLE_NOT_EXIST FailedPrecondition "etcdserver: root user does not have root role";
    USER_ALREADY_EXIST FailedPrecondition "etcdserver: user name already exists";
    USER_EMPTY InvalidArgument "etcdserver: user name is empty";
    USER_NOT_FOUND FailedPrecondition "etcdserver: user name not found";
    ROLE_ALREADY_EXIST FailedPrecondition "etcdserver: role name already exists";
    ROLE_NOT_FOUND FailedPrecondition "etcdserver: role name not found";
    ROLE_EMPTY InvalidArgument "etcdserver: role name is empty";
    AUTH_FAILED InvalidArgument "etcdserver: authentication failed, invalid user ID or password";
    PERMISSION_NOT_GIVEN InvalidArgument "etcdserver: permission not given";
    PERMISSION_DENIED PermissionDenied "etcdserver: permission denied";
    ROLE_NOT_GRANTED FailedPrecondition "etcdserver: role is not granted to the user";
    PERMISSION_NOT_GRANTED FailedPrecondition "etcdserver: permission is not granted to the role";
    AUTH_NOT_ENABLED FailedPrecondition "etcdserver: authentication is not enabled";
    INVALID_AUTH_TOKEN Unauthenticated "etcdserver: invalid auth token";
    INVALID_AUTH_MGMT InvalidArgument "etcdserver: invalid auth management";
    AUTH_OLD_REVISION InvalidArgument "etcdserver: revision of auth store is old";
    NO_LEADER Unavailable "etcdserver: no leader";
    NOT_LEADER FailedPrecondition "etcdserver: not leader";
    LEADER_CHANGED Unavailable "etcdserver: leader changed";
    NOT_CAPABLE FailedPrecondition "etcdserver: not capable";
    STOPPED Unavailable "etcdserver: server stopped";
    TIMEOUT Unavailable "etcdserver: request timed out";
    TIMEOUT_DUE_TO_LEADER_FAIL Unavailable
        "etcdserver: request timed out, possibly due to previous leader failure";
    TIMEOUT_DUE_TO_CONNECTION_LOST Unavailable
        "etcdserver: request timed out, possibly due to connection lost";
    TIMEOUT_WAIT_APPLIED_INDEX Unavailable
        "etcdserver: request timed out, waiting for the applied index took too long";
    TIMEOUT_LEADER_TRANSFER Unavailable
        "etcdserver: request timed out, leader transfer took too long";
    UNHEALTHY Unavailable "etcdserver: unhealthy cluster";
    CORRUPT DataLoss "etcdserver: corrupt cluster";
    NOT_SUPPORTED_FOR_LEARNER FailedPrecondition "etcdserver: rpc not supported for learner";
    BAD_LEADER_TRANSFEREE FailedPrecondition "etcdserver: bad leader transferee";
    WRONG_DOWNGRADE_VERSION_FORMAT InvalidArgument
        "etcdserver: wrong downgrade target version format";
    INVALID_DOWNGRADE_TARGET_VERSION InvalidArgument "etcdserver: invalid downgrade target version";
    CLUSTER_VERSION_UNAVAILABLE FailedPrecondition
        "etcdserver: cluster version not found during downgrade";
    DOWNGRADE_IN_PROCESS FailedPrecondition "etcdserver: cluster has a downgrade job in progress";
    NO_INFLIGHT_DOWNGRADE FailedPrecondition "etcdserver: no inflight downgrade job";
    CANCELED Canceled "etcdserver: request canceled";
    DEADLINE_EXCEEDED DeadlineExceeded "etcdserver: context deadline exceeded";
}

impl EtcdError {
    /// Creates an error that etcd has no constant for.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }

    /// Creates the error for what this face does not offer.
    pub fn unimplemented(what: &str) -> Self {
        Self::new(Code::Unimplemented, format!("etcdserver: {what}"))
    }

    /// Returns its code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Returns its text.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// Translates what has no place of its own in a service. A write that may have had an effect is a
/// timeout, after which etcd's clients do not repeat it.
impl From<Error> for EtcdError {
    fn from(error: Error) -> Self {
        match error {
            Error::Compacted { .. } => Self::COMPACTED,
            Error::NotYet { .. } => Self::FUTURE_REV,
            Error::NoLease { .. } => Self::LEASE_NOT_FOUND,
            Error::LeaseExists { .. } => Self::LEASE_EXIST,
            Error::OverQuota { .. } => Self::NO_SPACE,
            Error::TooLarge { .. } => Self::REQUEST_TOO_LARGE,
            Error::TtlOutOfBounds { ttl, most, .. } if ttl > most => Self::LEASE_TTL_TOO_LARGE,
            Error::TooManyLeases { .. } => Self::REQUEST_TOO_MANY_REQUESTS,
            Error::NotFound { .. } => Self::KEY_NOT_FOUND,
            Error::Denied(_) => Self::PERMISSION_DENIED,
            Error::Limited { .. } => Self::REQUEST_TOO_MANY_REQUESTS,
            // It had no effect, so a client may go to another endpoint.
            Error::Unavailable(_) => Self::NO_LEADER,
            Error::Unknown(_) | Error::Incomplete { .. } => Self::TIMEOUT,
            Error::Invalid(why) => Self::new(Code::InvalidArgument, format!("etcdserver: {why}")),
            Error::NoKeyspace { name } => Self::new(
                Code::Unavailable,
                format!("etcdserver: the keyspace {name} of the network does not exist"),
            ),
            other => Self::new(Code::Unknown, format!("etcdserver: {other}")),
        }
    }
}
