//! Archives in the form of tar (POSIX ustar), as far as small regular files need it.

/// Bytes of a block.
const BLOCK: usize = 512;
/// Longest name of a file.
const NAME_BYTES_MAX: usize = 100;

/// An archive that grows file by file.
#[derive(Debug, Default)]
pub(super) struct Archive(Vec<u8>);

impl Archive {
    /// Adds a file. A name that is too long is cut.
    pub(super) fn add(&mut self, name: &str, content: &[u8], modified_s: u64) {
        let mut header = [0_u8; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &name.as_bytes()[..name.len().min(NAME_BYTES_MAX)]);
        put(100, b"0000600\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{:011o}\0", content.len()).as_bytes());
        put(136, format!("{:011o}\0", modified_s.min(0o777_7777_7777)).as_bytes());
        // The checksum counts itself as spaces.
        put(148, b"        ");
        put(156, b"0");
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(header);
        self.0.extend(content);
        let rest = content.len() % BLOCK;
        if rest > 0 {
            self.0.resize(self.0.len() + BLOCK - rest, 0);
        }
    }

    /// Returns the archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_header_with_a_checksum_and_whole_blocks() {
        let mut archive = Archive::default();
        archive.add("a/b.json", b"{}", 1_700_000_000);
        archive.add("empty", b"", 0);
        let bytes = archive.finish();
        assert_eq!(bytes.len(), 5 * BLOCK);
        assert_eq!(&bytes[..9], b"a/b.json\0");
        assert_eq!(&bytes[124..136], b"00000000002\0");
        assert_eq!(&bytes[BLOCK..BLOCK + 3], b"{}\0");
        let told = std::str::from_utf8(&bytes[148..154]).unwrap();
        let told = u32::from_str_radix(told, 8).unwrap();
        let header = bytes[..BLOCK].iter().enumerate();
        let sum = header.map(|(at, byte)| match at {
            148..156 => u32::from(b' '),
            _ => u32::from(*byte),
        });
        assert_eq!(sum.sum::<u32>(), told);
    }
}
