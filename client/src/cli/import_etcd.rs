//! Arguments of `import etcd`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::Connect;

/// The end of the help of `import etcd`.
pub(super) const IMPORT_ETCD_HELP: &str = "\
The keys go to the keyspace etcd, unless --keyspace names another one; it is created with one shard \
if there is none. They keep their leases; versions and revisions begin anew.

From members it copies all keys as of one revision, follows with every change until Ctrl-C, and then \
compares both sides. To move: stop the writers, wait until it is 0 revisions behind, press Ctrl-C, \
and point the clients to dkv. The password comes from ETCDCTL_PASSWORD or a file.

Examples:
  dkv import etcd snapshot.db                   a file of etcdctl snapshot save
  dkv import etcd http://10.0.0.7:2379,http://10.0.0.8:2379
  dkv import etcd https://10.0.0.7:2379 --ca ca.pem --cert client.pem --key client.key
  dkv import etcd http://10.0.0.7:2379 --continue --until-caught-up";

/// Arguments of `import etcd`.
#[derive(Args, Debug)]
pub(crate) struct ImportEtcdArgs {
    /// File of a snapshot, or http(s)://HOST:PORT of members of one etcd, separated by commas
    #[arg(value_name = "SOURCE", value_hint = ValueHint::FilePath)]
    pub(crate) source: OsString,

    /// End once the keyspace has all that the members have
    #[arg(long)]
    pub(crate) until_caught_up: bool,

    /// Go on with a keyspace that has keys: what differs from the source is changed, and what the
    /// source does not have is deleted. Refused once others have written to it
    #[arg(long = "continue")]
    pub(crate) go_on: bool,

    /// Make the keyspace equal to the source even if others have written to it: with --continue
    #[arg(long, requires = "go_on")]
    pub(crate) overwrite: bool,

    /// Accept a file without a checksum, such as a copy of a member's database
    #[arg(long)]
    pub(crate) skip_hash_check: bool,

    /// User of etcd, who may read all keys
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Username)]
    pub(crate) user: Option<String>,

    /// File with the user's password [default: the variable ETCDCTL_PASSWORD]
    #[arg(long, value_name = "FILE", requires = "user", value_hint = ValueHint::FilePath)]
    pub(crate) password_file: Option<PathBuf>,

    /// Authorities of the members' certificates, in PEM
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) ca: Option<PathBuf>,

    /// Certificate to show to the members, in PEM
    #[arg(long, value_name = "FILE", requires = "key", value_hint = ValueHint::FilePath)]
    pub(crate) cert: Option<PathBuf>,

    /// Key of that certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "cert", value_hint = ValueHint::FilePath)]
    pub(crate) key: Option<PathBuf>,

    /// Print JSON documents; the same as --output json
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) connect: Connect,
}
