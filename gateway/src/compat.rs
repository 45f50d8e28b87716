//! Two older interfaces, in the words of the documents that specified them in 2017.

pub(crate) mod bulk;
pub(crate) mod kvs;
