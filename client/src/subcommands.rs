//! Does what the words of the command line ask of a network.

use dkv_console::console::Screen;
use dkv_console::problem::{Problem, Stop};

use crate::cli::Word;
use crate::load::{self, Task};
use crate::store::Store;
use crate::{admin, holders, placement};

/// Does it.
pub(crate) async fn perform(
    word: &Word,
    store: &impl Store,
    screen: &mut Screen,
) -> Result<(), Stop> {
    if let Word::Load(args) = word {
        let source = load::source(Task::Load, &args.transfer, screen).await?;
        load::run(Task::Load, &source, &args.transfer, store, screen).await?;
        if args.verify {
            load::run(Task::Verify, &source, &args.transfer, store, screen).await?;
        }
        return Ok(());
    }
    if let Word::Verify(transfer) = word {
        let source = load::source(Task::Verify, transfer, screen).await?;
        return load::run(Task::Verify, &source, transfer, store, screen).await;
    }
    let client = store.client(word.role()).await?;
    match word {
        Word::Token(args) => admin::token(&args.action, &client, screen).await,
        Word::Drain { node, undo: true, .. } => placement::undrain(node, &client, screen).await,
        Word::Drain { node, no_wait, .. } => {
            placement::drain(node, !no_wait, &client, screen).await
        }
        Word::Rebalance { dry_run: true, .. } => placement::foresee(&client, screen).await,
        Word::Rebalance { .. } => placement::rebalance(&client, screen).await,
        Word::Remove { node, .. } => admin::remove(node, &client, screen).await,
        Word::Keep { node, run, .. } => admin::keep(node, *run, &client, screen).await,
        Word::Holders { json, .. } => holders::list(*json, &client, screen).await,
        Word::Revoke { id, .. } => holders::revoke(id, &client, screen).await,
        _ => {
            Err(Problem::usage("this command stands alone; leave the address before it out").into())
        }
    }
}
