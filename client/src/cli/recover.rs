//! Arguments of `recover`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

/// Arguments of `recover`.
#[derive(Args, Debug)]
pub(crate) struct RecoverArgs {
    #[command(subcommand)]
    pub(crate) action: RecoverAction,
}

impl RecoverArgs {
    /// Returns whether it is to print JSON.
    pub(crate) fn json(&self) -> bool {
        let RecoverAction::Group(args) = &self.action;
        args.json
    }
}

/// What to recover.
#[derive(Debug, Subcommand)]
pub(crate) enum RecoverAction {
    /// Recover groups from the remaining data directories
    #[command(
        override_usage = "dkv [ADDRESS] recover group <DATA_DIR>... [OPTIONS]",
        after_help = "Stop every node that is left, and name all of their data directories. The \
            command shows what each has of every group and what may be lost, and asks; without a \
            terminal and without --yes it changes nothing. All other nodes are removed for good. \
            It insists on the registration server's word which nodes it has heard lately (ADDRESS \
            or DKV_SERVER), unless --server-lost is given.\n\nExamples:\n  \
            sudo -u dkv-node dkv 10.0.0.1:4400 recover group /var/lib/dkv/n3\n  \
            dkv recover group n3-data n4-data --yes --report recovery.json"
    )]
    Group(RecoverGroupArgs),
}

/// Arguments of `recover group`.
#[derive(Args, Debug)]
pub(crate) struct RecoverGroupArgs {
    /// Data directories of stopped nodes: all that are left
    #[arg(required = true, value_name = "DATA_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) directories: Vec<PathBuf>,
    /// Name or id of a node that is lost for good, although something answers at its address or
    /// the registration server has heard it lately; may be repeated
    #[arg(long, value_name = "NODE", value_hint = ValueHint::Other)]
    pub(crate) gone: Vec<String>,
    /// Recreate shards as empty if no replica of them is left
    #[arg(long)]
    pub(crate) empty_shards: bool,
    /// Let shards go on with old replicas, on nodes that no longer have a place in them, if no
    /// other is left
    #[arg(long)]
    pub(crate) stale_shards: bool,
    /// The registration server is lost as well: do not insist on its word that the lost nodes are
    /// silent
    #[arg(long)]
    pub(crate) server_lost: bool,
    /// Do not ask: all other nodes are lost for good
    #[arg(long)]
    pub(crate) yes: bool,
    /// Where to write the report [default: recovery-TIME.json in the first data directory]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) report: Option<PathBuf>,
    /// Print a JSON document; the same as --output json
    #[arg(long)]
    pub(crate) json: bool,
}
