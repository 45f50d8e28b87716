//! Splits an input into the parts that a target needs: numbers, and pieces with a length prefix.

/// The rest of an input.
pub(crate) struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    /// The next byte; zero after the end.
    pub(crate) fn byte(&mut self) -> u8 {
        match self.0 {
            [first, rest @ ..] => {
                self.0 = rest;
                *first
            }
            [] => 0,
        }
    }

    /// The next piece, cut at the end of the input; `None` after the end.
    pub(crate) fn piece(&mut self) -> Option<&'a [u8]> {
        let (&[low, high], rest) = self.0.split_first_chunk()?;
        let length = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
        let (piece, rest) = rest.split_at(length);
        self.0 = rest;
        Some(piece)
    }

    /// The rest of the input.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Joins pieces into an input that [`Parts::piece`] splits again.
pub(crate) fn join<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut joined = Vec::new();
    for piece in pieces {
        // The prefix has two bytes, so longer pieces are cut.
        let piece = &piece[..piece.len().min(usize::from(u16::MAX))];
        joined.extend((piece.len() as u16).to_le_bytes());
        joined.extend_from_slice(piece);
    }
    joined
}
