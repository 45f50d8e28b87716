//! Trees of pages: laid out from sizes, and written bottom-up.

use std::io::{self, Write};

use super::{PAGE_BYTES, leaf, pages_of, write_page};
use crate::format::{self, ELEMENT_BYTES, PAGE_HEADER_BYTES, PageHeader};

/// The layout of a bucket's tree, all of whose keys have one length.
#[derive(Debug)]
pub struct Tree {
    key_bytes: usize,
    /// The number of entries of each leaf.
    leaves: Vec<u32>,
    /// Pages of all leaves, overflow included.
    leaf_pages: u64,
    /// Pages of the last leaf.
    last_pages: u64,
    /// Entries and bytes of the leaf that grows.
    open: (u32, usize),
}

impl Tree {
    /// Creates the layout of a tree without entries, whose keys have `key_bytes` bytes.
    pub fn new(key_bytes: usize) -> Self {
        Self { key_bytes, leaves: Vec::new(), leaf_pages: 0, last_pages: 0, open: (0, 0) }
    }

    /// Adds an entry after all others.
    pub fn add(&mut self, value_bytes: u32) {
        let bytes = ELEMENT_BYTES + self.key_bytes + value_bytes as usize;
        let (entries, so_far) = self.open;
        if entries > 0 && PAGE_HEADER_BYTES + so_far + bytes > PAGE_BYTES {
            self.end_leaf();
        }
        self.open.0 += 1;
        self.open.1 += bytes;
    }

    /// Ends the layout: no entries follow.
    #[must_use]
    pub fn finish(mut self) -> Self {
        if self.open.0 > 0 {
            self.end_leaf();
        }
        self
    }

    fn end_leaf(&mut self) {
        let (entries, bytes) = std::mem::take(&mut self.open);
        self.leaves.push(entries);
        self.last_pages = pages_of(PAGE_HEADER_BYTES + bytes);
        self.leaf_pages += self.last_pages;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// Returns the number of all pages.
    pub(super) fn pages(&self) -> u64 {
        let mut pages = self.leaf_pages;
        let mut level = self.leaves.len();
        while level > 1 {
            level = level.div_ceil(self.children_max());
            pages += level as u64;
        }
        pages
    }

    /// Returns the number of pages of the root, which comes last.
    pub(super) fn root_pages(&self) -> u64 {
        if self.leaves.len() > 1 { 1 } else { self.last_pages }
    }

    /// Returns the most children of a branch.
    fn children_max(&self) -> usize {
        ((PAGE_BYTES - PAGE_HEADER_BYTES) / (ELEMENT_BYTES + self.key_bytes)).max(2)
    }
}

/// Writes the entries of a bucket.
#[derive(Debug)]
pub struct TreeWriter<'a, W> {
    tree: &'a Tree,
    out: &'a mut W,
    /// Number of the next page.
    next: u64,
    /// Values of the leaf that grows, each with its key before it.
    entries: Vec<Vec<u8>>,
    /// The leaves that are written: the first key and the number of each.
    keys: Vec<u8>,
    ids: Vec<u64>,
}

impl<'a, W: Write> TreeWriter<'a, W> {
    pub(super) fn new(tree: &'a Tree, out: &'a mut W, next: u64) -> Self {
        let (keys, ids) = (Vec::new(), Vec::new());
        Self { tree, out, next, entries: Vec::new(), keys, ids }
    }

    /// Writes an entry, after all others in the order of keys.
    ///
    /// # Errors
    /// The output cannot be written, or this is not what was planned.
    pub fn entry(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if key.len() != self.tree.key_bytes {
            return Err(unplanned());
        }
        let wanted = *self.tree.leaves.get(self.ids.len()).ok_or_else(unplanned)?;
        self.entries.push([key, value].concat());
        if self.entries.len() < wanted as usize {
            return Ok(());
        }
        let entries = std::mem::take(&mut self.entries);
        let parts = entries.iter().map(|entry| entry.split_at(self.tree.key_bytes));
        let parts: Vec<_> = parts.map(|(key, value)| (0, key, value)).collect();
        if let Some((_, first, _)) = parts.first() {
            self.keys.extend(*first);
        }
        self.ids.push(self.next);
        let page = leaf(self.next, &parts);
        self.next += pages_of(page.len());
        write_page(&mut self.out, page)
    }

    /// Writes the branches, and returns the number of the page after the root.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        let leaf_pages: u64 = self.tree.leaf_pages;
        let written = self.ids.first().map_or(0, |first| self.next - first);
        if self.ids.len() != self.tree.leaves.len() || written != leaf_pages {
            return Err(unplanned());
        }
        while self.ids.len() > 1 {
            let children = std::mem::take(&mut self.ids);
            let keys = std::mem::take(&mut self.keys);
            let (count, length) = (children.len(), self.tree.key_bytes);
            // The branches of a level have equally many children, so that none has a single one.
            let branches = count.div_ceil(self.tree.children_max());
            for branch in 0..branches {
                let part = branch * count / branches..(branch + 1) * count / branches;
                let part_keys = &keys[part.start * length..part.end * length];
                self.keys.extend(&part_keys[..length]);
                self.branch(&children[part], part_keys)?;
            }
        }
        Ok(self.next)
    }

    fn branch(&mut self, children: &[u64], keys: &[u8]) -> io::Result<()> {
        let id = self.next;
        let mut page = Vec::with_capacity(PAGE_BYTES);
        let count = children.len() as u16;
        PageHeader { id, flags: format::BRANCH, count, overflow: 0 }.write(&mut page);
        let length = self.tree.key_bytes;
        for (at, child) in children.iter().enumerate() {
            let position = (children.len() - at) * ELEMENT_BYTES + at * length;
            page.extend((position as u32).to_le_bytes());
            page.extend((length as u32).to_le_bytes());
            page.extend(child.to_le_bytes());
        }
        page.extend(keys);
        self.ids.push(id);
        self.next += 1;
        write_page(&mut self.out, page)
    }
}

fn unplanned() -> io::Error {
    io::Error::other("the entries of a bucket are not those that were planned")
}
