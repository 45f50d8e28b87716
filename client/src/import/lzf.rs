//! LZF, by which Redis compresses strings in its dumps.

/// Decompresses into exactly `length` bytes; `None` if that is not what it is.
pub(super) fn decompress(packed: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = packed.iter().copied();
    while let Some(control) = rest.next() {
        let control = usize::from(control);
        if control < 32 {
            for _ in 0..=control {
                out.push(rest.next()?);
            }
        } else {
            let mut copied = control >> 5;
            if copied == 7 {
                copied += usize::from(rest.next()?);
            }
            let back = ((control & 31) << 8) + usize::from(rest.next()?) + 1;
            let from = out.len().checked_sub(back)?;
            for at in from..from + copied + 2 {
                out.push(*out.get(at)?);
            }
        }
        if out.len() > length {
            return None;
        }
    }
    (out.len() == length).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_literals_come_back() {
        // A literal of one byte, and a copy of 8 bytes that overlaps it.
        assert_eq!(decompress(b"\x00a\xc0\x00", 9).as_deref(), Some(&b"aaaaaaaaa"[..]));
        // A long copy: 7 + 1 + 2 bytes.
        assert_eq!(decompress(b"\x00a\xe0\x01\x00", 11).map(|it| it.len()), Some(11));
        for (packed, length) in [(&b"\x00a"[..], 2), (b"\x01a", 2), (b"\xe0", 9), (b"\x20\x00", 3)]
        {
            assert_eq!(decompress(packed, length), None);
        }
    }
}
