//! The layout of bbolt's pages. Numbers are little-endian.
//!
//! A database is a row of pages of one size. The first two are *meta* pages, of which the valid one
//! with the higher transaction counts; it names the page of the root bucket. A bucket is a tree of
//! *branch* and *leaf* pages, or lies *inline* in the value of its name. A page that does not fit
//! is followed by *overflow* pages without a header.

/// Bytes of the header of a page.
pub(crate) const PAGE_HEADER_BYTES: usize = 16;
/// Bytes of the fixed part of an element of a branch or a leaf.
pub(crate) const ELEMENT_BYTES: usize = 16;
/// Bytes of a bucket's root and sequence, with which the value of its name begins.
pub(crate) const BUCKET_HEADER_BYTES: usize = 16;
/// Bytes of a meta page after its header.
pub(crate) const META_BYTES: usize = 64;

/// Flag of a page with children.
pub(crate) const BRANCH: u16 = 0x01;
/// Flag of a page with keys and values.
pub(crate) const LEAF: u16 = 0x02;
/// Flag of the first two pages.
pub(crate) const META: u16 = 0x04;
/// Flag of the list of free pages.
pub(crate) const FREELIST: u16 = 0x10;
/// Flag of an element of a leaf that is a bucket.
pub(crate) const BUCKET: u32 = 0x01;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// The header of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageHeader {
    pub(crate) id: u64,
    pub(crate) flags: u16,
    pub(crate) count: u16,
    /// Pages that follow and belong to it.
    pub(crate) overflow: u32,
}

impl PageHeader {
    pub(crate) fn read(bytes: &[u8; PAGE_HEADER_BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *bytes;
        Self {
            id: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            flags: u16::from_le_bytes([i, j]),
            count: u16::from_le_bytes([k, l]),
            overflow: u32::from_le_bytes([m, n, o, p]),
        }
    }

    pub(crate) fn write(self, out: &mut Vec<u8>) {
        out.extend(self.id.to_le_bytes());
        out.extend(self.flags.to_le_bytes());
        out.extend(self.count.to_le_bytes());
        out.extend(self.overflow.to_le_bytes());
    }
}

/// A meta page, without its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) page_bytes: u32,
    /// Page of the root bucket.
    pub(crate) root: u64,
    pub(crate) freelist: u64,
    /// Number of pages.
    pub(crate) pages: u64,
    pub(crate) transaction: u64,
}

impl Meta {
    /// Reads a meta page; `None` if it is none, or damaged.
    pub(crate) fn read(bytes: &[u8; META_BYTES]) -> Option<Self> {
        let short = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let long = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let meta = Self {
            page_bytes: short(8)?,
            root: long(16)?,
            freelist: long(32)?,
            pages: long(40)?,
            transaction: long(48)?,
        };
        let known = short(0)? == MAGIC && short(4)? == VERSION;
        let sized = meta.page_bytes.is_power_of_two() && (512..=65536).contains(&meta.page_bytes);
        (known && sized && long(56)? == fnv(&bytes[..56])).then_some(meta)
    }

    pub(crate) fn write(self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend(MAGIC.to_le_bytes());
        out.extend(VERSION.to_le_bytes());
        out.extend(self.page_bytes.to_le_bytes());
        out.extend(0_u32.to_le_bytes());
        out.extend(self.root.to_le_bytes());
        // The sequence of the root bucket.
        out.extend(0_u64.to_le_bytes());
        out.extend(self.freelist.to_le_bytes());
        out.extend(self.pages.to_le_bytes());
        out.extend(self.transaction.to_le_bytes());
        let checksum = fnv(&out[start..]);
        out.extend(checksum.to_le_bytes());
    }
}

/// Returns the FNV-1a hash, of 64 bits.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_were_written() {
        let header = PageHeader { id: 7, flags: LEAF, count: 3, overflow: 2 };
        let mut bytes = Vec::new();
        header.write(&mut bytes);
        assert_eq!(PageHeader::read(&bytes.try_into().unwrap()), header);

        let meta = Meta { page_bytes: 4096, root: 9, freelist: 2, pages: 10, transaction: 1 };
        let mut bytes = Vec::new();
        meta.write(&mut bytes);
        let bytes: [u8; META_BYTES] = bytes.try_into().unwrap();
        assert_eq!(Meta::read(&bytes), Some(meta));
        for at in 0..META_BYTES {
            // Two fields are of no use to a reader, but the checksum has them.
            let mut wrong = bytes;
            wrong[at] ^= 1;
            assert_eq!(Meta::read(&wrong), None, "byte {at}");
        }
    }

    #[test]
    fn the_checksum_of_metas_is_fnv() {
        assert_eq!(fnv(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
