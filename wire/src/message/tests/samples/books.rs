//! Samples of messages about the books.

use bytes::Bytes;
use dkv_base::id::HolderId;

use super::{uuid, v4, v6};
use crate::message::*;

pub(super) fn requests() -> Vec<RequestBody> {
    let (token, holder) = (BookKey::Token(uuid('t')), BookKey::Holder(HolderId(uuid('h'))));
    let at = BooksVersion { number: 7, change: uuid('l') };
    let change = BooksChange {
        id: uuid('i'),
        at,
        complete: true,
        records: vec![(token, None), (holder, Some(Bytes::from_static(b"record")))],
        servers: vec![(HolderId(uuid('s')), Some(v4())), (HolderId(uuid('r')), None)],
    };
    vec![
        RequestBody::Books { after: None, known: None },
        RequestBody::Books { after: Some(token), known: Some(at) },
        RequestBody::ChangeBooks(Box::new(change)),
    ]
}

pub(super) fn answers() -> Vec<Answer> {
    let page = BooksPage {
        version: BooksVersion { number: 8, change: uuid('i') },
        complete: true,
        recent: vec![uuid('i')],
        servers: vec![(HolderId(uuid('s')), v6())],
        records: vec![(BookKey::Holder(HolderId(uuid('h'))), Bytes::from_static(b"record"))],
        more: true,
    };
    vec![Answer::Books(Box::new(page))]
}
