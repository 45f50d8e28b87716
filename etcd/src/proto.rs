//! Messages and services, generated from `proto/`; a module for each package.
#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    rustdoc::all,
    reason = "generated"
)]

macro_rules! package {
    ($name:ident, $messages:literal, $json:literal) => {
        pub mod $name {
            include!(concat!(env!("OUT_DIR"), $messages));
            include!(concat!(env!("OUT_DIR"), $json));
        }
    };
}

package!(authpb, "/authpb.rs", "/authpb.serde.rs");
package!(etcdserverpb, "/etcdserverpb.rs", "/etcdserverpb.serde.rs");
package!(mvccpb, "/mvccpb.rs", "/mvccpb.serde.rs");
package!(v3electionpb, "/v3electionpb.rs", "/v3electionpb.serde.rs");
package!(v3lockpb, "/v3lockpb.rs", "/v3lockpb.serde.rs");

/// The descriptors of all of them, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
