//! The books, for registration servers: only the coordinator answers, and only a server may ask.

use dkv_wire::message::{Answer, BookKey, BooksChange, BooksVersion, Refusal};
use tokio::time::timeout;

use super::context::RequestContext;
use crate::net::reply::ReplyTo;
use dkv_state::DirectoryCommand;

/// Returns a page of the books, once a quorum has confirmed that this node leads: a coordinator
/// that was deposed and does not know it yet has an older version, on which no change can be
/// decided.
pub(super) fn page(
    context: &RequestContext<'_>,
    after: Option<BookKey>,
    known: Option<BooksVersion>,
    reply: ReplyTo,
) {
    let control = context.node.control();
    if !control.leads() {
        return reply.refuse(Refusal::NotPrimary { primary: control.leader() });
    }
    let patience = context.working_time();
    context.answer(reply, move |node| async move {
        let control = node.control();
        match timeout(patience, control.confirm_leadership()).await {
            Ok(confirmed) => confirmed?,
            Err(_) => return Err(Refusal::Unavailable("no quorum answers".into())),
        };
        let page = control.state_machine().with_directory(|directory| {
            directory.exists().then(|| directory.books_page(after, known))
        });
        match page.flatten() {
            Some(page) => Ok(Answer::Books(Box::new(page))),
            None => Err(Refusal::Unavailable("the network has not begun yet".into())),
        }
    });
}

/// Changes the books.
pub(super) fn change(context: &RequestContext<'_>, change: Box<BooksChange>, reply: ReplyTo) {
    let server = context.peer.holder;
    context.change_directory(DirectoryCommand::ChangeBooks { server, change }, reply);
}
