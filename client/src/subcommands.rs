//! Carries out the subcommands that act on a network and are not commands of the grammar.

use std::os::unix::ffi::OsStrExt;

use dkv_api::Revision;
use dkv_console::Console;
use dkv_console::problem::{Abort, Problem};

use crate::cli::{DebugAction, Subcommand};
use crate::load::{self, Task};
use crate::store::Store;
use crate::{
    admin, backup, bundle, doctor, explain, history, holders, import, keyspace, lease, log,
    placement, policy, transaction,
};

/// Carries out a subcommand.
pub(crate) async fn run(
    word: &Subcommand,
    store: &impl Store,
    console: &mut Console,
) -> Result<(), Abort> {
    if let Subcommand::Load(args) = word {
        let source = load::source(Task::Load, &args.transfer, console).await?;
        load::run(Task::Load, &source, &args.transfer, store, console).await?;
        if args.verify {
            load::run(Task::Verify, &source, &args.transfer, store, console).await?;
        }
        return Ok(());
    }
    if let Subcommand::Verify(transfer) = word {
        let source = load::source(Task::Verify, transfer, console).await?;
        return load::run(Task::Verify, &source, transfer, store, console).await;
    }
    if let Subcommand::Import(args) = word {
        return import::run(args, store, console).await;
    }
    if let Subcommand::Backup(args) = word
        && args.action.is_offline()
    {
        return backup::offline(&args.action, console).await;
    }
    let client = store.client(word.role()).await?;
    match word {
        Subcommand::Backup(args) => {
            let keyspace = word.connect().and_then(|connect| connect.keyspace);
            backup::run(&args.action, keyspace, &client, console).await
        }
        Subcommand::Restore(args) => {
            backup::restore(args, args.connect.keyspace.clone(), &client, console).await
        }
        Subcommand::Keyspace(args) => keyspace::run(&args.action, &client, console).await,
        Subcommand::Policy(args) => policy::run(&args.action, &client, console).await,
        Subcommand::Whoami { .. } => policy::whoami(&client, console).await,
        Subcommand::Can(args) => policy::can(args, &client, console).await,
        Subcommand::Token(args) => admin::token(&args.action, &client, console).await,
        Subcommand::Drain { node, undo: true, .. } => {
            placement::undrain(node, &client, console).await
        }
        Subcommand::Drain { node, no_wait, .. } => {
            placement::drain(node, !no_wait, &client, console).await
        }
        Subcommand::Rebalance { dry_run: true, .. } => placement::show_plan(&client, console).await,
        Subcommand::Rebalance { .. } => placement::rebalance(&client, console).await,
        Subcommand::Remove { which, .. } => admin::remove(which, &client, console).await,
        Subcommand::Compact { revision, shard, yes, .. } => {
            history::compact(Revision(*revision), *shard, *yes, &client, console).await
        }
        Subcommand::Log(args) => log::run(args, &client, console).await,
        Subcommand::Explain(args) => {
            // The step restores this.
            console.json |= args.json;
            explain::run(args.key.as_bytes(), &client, console).await
        }
        Subcommand::Debug(args) => {
            let DebugAction::Bundle { file, .. } = &args.action;
            bundle::run(file.as_deref(), store, &client, console).await
        }
        Subcommand::Doctor(args) => {
            console.json |= args.json;
            doctor::run(store, &client, console).await
        }
        Subcommand::Txn { file, json, .. } => {
            // The step restores this.
            console.json |= json;
            transaction::run(file, &client, console).await
        }
        Subcommand::Increment { key, by, .. } => {
            transaction::increment(key.as_bytes(), *by, &client, console).await
        }
        Subcommand::Append { key, value, .. } => {
            transaction::append(key.as_bytes(), value.as_bytes(), &client, console).await
        }
        Subcommand::Ttl { key, .. } => lease::ttl(key.as_bytes(), &client, console).await,
        Subcommand::Lease(args) => lease::run(&args.action, &client, console).await,
        Subcommand::Keep { node, run, .. } => admin::keep(node, *run, &client, console).await,
        Subcommand::Holders { json, .. } => holders::list(*json, &client, console).await,
        Subcommand::Revoke { id, .. } => holders::revoke(id, &client, console).await,
        _ => {
            Err(Problem::usage("this command takes no address before it; omit the address").into())
        }
    }
}
