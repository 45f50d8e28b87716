//! Arguments of commands about nodes.

use clap::{Args, ValueHint};

/// Which node `remove` takes out of the network, and how.
#[derive(Args, Debug)]
pub(crate) struct RemoveArgs {
    /// Name of the node, its id, or the beginning of its id
    #[arg(value_hint = ValueHint::Other)]
    pub(crate) node: String,
    /// Refuse the node from now on, and wait for nothing that it says or has
    #[arg(long)]
    pub(crate) at_once: bool,
    /// The name once more, as the confirmation; without it, a terminal is asked
    #[arg(long, value_name = "NAME", requires = "at_once", value_hint = ValueHint::Other)]
    pub(crate) yes: Option<String>,
}
