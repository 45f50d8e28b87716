//! Why a node ends.

/// Why a node did not start, or stopped by itself. Its text is one sentence for a person.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NodeError(pub(crate) String);

impl NodeError {
    /// Makes an error of the text of another one.
    pub fn new(error: impl ToString) -> Self {
        Self(error.to_string())
    }
}
