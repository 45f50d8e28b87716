//! Manual pages, made from the same declarations as the help.

use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};

use crate::cli::Cli;

/// Programs that are a subcommand of `dkv` as well: their name, and that of the subcommand.
const PROGRAMS: [(&str, &str); 2] = [("dkv-server", "server"), ("dkv-node", "node")];

/// Writes a page for each command, as `dkv-put.1`. The pages of the server and of a node have the
/// names of their programs too.
///
/// # Errors
/// Those of the file system.
pub(crate) fn write(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command(), folder)?;
    for (program, subcommand) in PROGRAMS {
        let root = Cli::command();
        let Some(command) = root.find_subcommand(subcommand) else { continue };
        let command: Command = command.clone().name(program).version(env!("CARGO_PKG_VERSION"));
        clap_mangen::generate_to(command, folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_every_program_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        for command in ["dkv", "dkv-put", "dkv-keyspace-create", "dkv-server", "dkv-node"] {
            let page = folder.path().join(format!("{command}.1"));
            let page = std::fs::read_to_string(&page).unwrap_or_else(|e| panic!("{page:?}: {e}"));
            assert!(page.contains(".SH NAME"), "{command}");
        }
        for command in Cli::command().get_subcommands() {
            let page = folder.path().join(format!("dkv-{}.1", command.get_name()));
            assert!(page.exists(), "{}", command.get_name());
        }
    }
}
