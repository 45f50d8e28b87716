//! Two older interfaces, each in the words of the document that specified it.

pub(crate) mod bulk;
pub(crate) mod kvs;
