//! The books, for registration servers: only the coordinator answers, and only a server may ask.

use dkv_wire::message::{Answer, BookKey, BooksChange, BooksVersion, Refusal};

use super::context::RequestContext;
use crate::net::reply::ReplyTo;
use dkv_state::DirectoryCommand;

/// Returns a page of the books.
///
/// A coordinator that was deposed and does not know it yet may answer with an older version. No
/// change that is decided on an older version takes effect.
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
    let page = control
        .state_machine()
        .with_directory(|directory| directory.exists().then(|| directory.books_page(after, known)));
    match page.flatten() {
        Some(page) => reply.send(Ok(Answer::Books(Box::new(page)))),
        None => reply.refuse(Refusal::Unavailable("the network has not begun yet".into())),
    }
}

/// Changes the books.
pub(super) fn change(context: &RequestContext<'_>, change: Box<BooksChange>, reply: ReplyTo) {
    context.change_directory(DirectoryCommand::ChangeBooks(change), reply);
}
