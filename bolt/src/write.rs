//! Writes databases, from the beginning to the end in one pass.
//!
//! Pages name others by number, so [`Plan`] first lays out all of them from the sizes of the
//! entries. Trees are written bottom-up: leaves, the branches over them, and so on up to the root.

#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeMap;
use std::io::{self, Write};

pub use self::tree::{Tree, TreeWriter};
use crate::format::{self, Meta, PAGE_HEADER_BYTES, PageHeader};

/// Bytes of a page.
pub(crate) const PAGE_BYTES: usize = 4096;
/// Page of the list of free pages, which is empty.
const FREELIST_PAGE: u64 = 2;
/// The first page of a tree.
const FIRST_PAGE: u64 = 3;

/// A database that is to be written: its buckets.
#[derive(Debug, Default)]
pub struct Plan {
    buckets: BTreeMap<&'static str, Contents>,
}

#[derive(Debug)]
enum Contents {
    Inline(BTreeMap<Vec<u8>, Vec<u8>>),
    Tree(Tree),
}

impl Plan {
    /// Creates a database without buckets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a bucket with a few small entries.
    #[must_use]
    pub fn small(mut self, name: &'static str, entries: BTreeMap<Vec<u8>, Vec<u8>>) -> Self {
        self.buckets.insert(name, Contents::Inline(entries));
        self
    }

    /// Adds a bucket whose entries are written with [`write`](Self::write).
    #[must_use]
    pub fn tree(mut self, name: &'static str, tree: Tree) -> Self {
        let contents = match tree.is_empty() {
            true => Contents::Inline(BTreeMap::new()),
            false => Contents::Tree(tree),
        };
        self.buckets.insert(name, contents);
        self
    }

    /// Returns the length of the database, in bytes.
    pub fn bytes(&self) -> u64 {
        let root = self.root_page(&self.roots());
        (self.first_root_page() + pages_of(root.len())) * PAGE_BYTES as u64
    }

    /// Writes the database. `fill` writes the entries of each tree that is not empty, in the order
    /// of the names.
    ///
    /// # Errors
    /// The output cannot be written, or `fill` does not write what was planned.
    pub fn write<W: Write>(
        &self,
        mut out: W,
        mut fill: impl FnMut(&str, &mut TreeWriter<'_, W>) -> io::Result<()>,
    ) -> io::Result<()> {
        let roots = self.roots();
        let root = self.root_page(&roots);
        let first = self.first_root_page();
        let pages = first + pages_of(root.len());
        for id in 0..2 {
            let meta = Meta {
                page_bytes: PAGE_BYTES as u32,
                root: first,
                freelist: FREELIST_PAGE,
                pages,
                // The first page counts.
                transaction: 2 - id,
            };
            let mut page = Vec::new();
            PageHeader { id, flags: format::META, count: 0, overflow: 0 }.write(&mut page);
            meta.write(&mut page);
            write_page(&mut out, page)?;
        }
        let mut page = Vec::new();
        let header =
            PageHeader { id: FREELIST_PAGE, flags: format::FREELIST, count: 0, overflow: 0 };
        header.write(&mut page);
        write_page(&mut out, page)?;
        let mut next = FIRST_PAGE;
        for (name, contents) in &self.buckets {
            if let Contents::Tree(tree) = contents {
                let mut writer = TreeWriter::new(tree, &mut out, next);
                fill(name, &mut writer)?;
                next = writer.finish()?;
            }
        }
        write_page(&mut out, root)?;
        out.flush()
    }

    /// Returns the page of the root of each bucket; zero for an inline one.
    fn roots(&self) -> BTreeMap<&'static str, u64> {
        let mut next = FIRST_PAGE;
        let root = |contents: &Contents| match contents {
            Contents::Inline(_) => 0,
            Contents::Tree(tree) => {
                next += tree.pages();
                next - tree.root_pages()
            }
        };
        let roots: Vec<u64> = self.buckets.values().map(root).collect();
        self.buckets.keys().copied().zip(roots).collect()
    }

    fn first_root_page(&self) -> u64 {
        let pages = self.buckets.values().map(|contents| match contents {
            Contents::Inline(_) => 0,
            Contents::Tree(tree) => tree.pages(),
        });
        FIRST_PAGE + pages.sum::<u64>()
    }

    /// Returns the page with the names of the buckets.
    fn root_page(&self, roots: &BTreeMap<&'static str, u64>) -> Vec<u8> {
        let entries = self.buckets.iter().map(|(name, contents)| {
            let root = roots.get(name).copied().unwrap_or_default();
            let mut value = root.to_le_bytes().to_vec();
            // Its sequence.
            value.extend(0_u64.to_le_bytes());
            if let Contents::Inline(entries) = contents {
                let entries = entries.iter().map(|(key, value)| (0, &key[..], &value[..]));
                value.extend(leaf(0, &entries.collect::<Vec<_>>()));
            }
            (name.as_bytes(), value)
        });
        let entries: Vec<(&[u8], Vec<u8>)> = entries.collect();
        let entries = entries.iter().map(|(name, value)| (format::BUCKET, *name, &value[..]));
        leaf(self.first_root_page(), &entries.collect::<Vec<_>>())
    }
}

/// Returns a leaf, from flags, keys and values.
fn leaf(id: u64, entries: &[(u32, &[u8], &[u8])]) -> Vec<u8> {
    let data: usize = entries.iter().map(|(_, key, value)| key.len() + value.len()).sum();
    let bytes = PAGE_HEADER_BYTES + entries.len() * format::ELEMENT_BYTES + data;
    let overflow = if id == 0 { 0 } else { (pages_of(bytes) - 1) as u32 };
    let mut page = Vec::with_capacity(bytes);
    let header = PageHeader { id, flags: format::LEAF, count: entries.len() as u16, overflow };
    header.write(&mut page);
    let mut position = entries.len() * format::ELEMENT_BYTES;
    for (flags, key, value) in entries {
        for number in [*flags, position as u32, key.len() as u32, value.len() as u32] {
            page.extend(number.to_le_bytes());
        }
        position += key.len() + value.len();
        position -= format::ELEMENT_BYTES;
    }
    for (_, key, value) in entries {
        page.extend(*key);
        page.extend(*value);
    }
    page
}

/// Writes a page and what fills its last one.
fn write_page(out: &mut impl Write, mut page: Vec<u8>) -> io::Result<()> {
    page.resize(pages_of(page.len()) as usize * PAGE_BYTES, 0);
    out.write_all(&page)
}

fn pages_of(bytes: usize) -> u64 {
    bytes.div_ceil(PAGE_BYTES) as u64
}
