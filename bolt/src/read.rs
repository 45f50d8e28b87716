//! Reads databases: their buckets, and the entries of a bucket in order.

mod page;
#[cfg(test)]
mod tests;

use std::io::{self, Read, Seek, SeekFrom};

use bytes::Bytes;

use self::page::Page;
use crate::error::BoltError;
use crate::format::{self, META_BYTES, Meta, PAGE_HEADER_BYTES, PageHeader};

/// Levels of a tree. One of 16 with the least sensible pages has more keys than fit a disk.
const DEPTH_MAX: usize = 16;
/// Longest page with children, in bytes: keys of a database have 32 KiB at most.
const BRANCH_BYTES_MAX: u64 = 1 << 20;
/// Longest page with values, in bytes. etcd's values have 1.5 MiB unless a flag says otherwise.
const LEAF_BYTES_MAX: u64 = 64 << 20;

/// A bbolt database that is read.
#[derive(Debug)]
pub struct Database<R> {
    input: R,
    page_bytes: u64,
    /// Number of pages.
    pages: u64,
    /// Page of the root bucket.
    root: u64,
}

/// A bucket of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket(Root);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Root {
    /// The page of its root.
    Page(u64),
    /// Its only page, which lies in the entry of its name.
    Inline(Bytes),
}

/// A key of a bucket and its value, or a bucket within the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// The value; that of a bucket is where it is.
    pub value: Bytes,
    /// Whether it is a bucket.
    pub is_bucket: bool,
}

impl<R: Read + Seek> Database<R> {
    /// Opens a database, which has the first `bytes` bytes of the input.
    ///
    /// # Errors
    /// It is none, or has fewer bytes than it says.
    pub fn open(mut input: R, bytes: u64) -> Result<Self, BoltError> {
        let mut metas = Vec::new();
        metas.extend(meta_at(&mut input, 0, bytes)?);
        // If the first page is damaged, the size of pages is not known.
        for page_bytes in (9..=16).map(|bits| 1_u64 << bits) {
            let known = metas.first().is_none_or(|meta| u64::from(meta.page_bytes) == page_bytes);
            if known {
                let second = meta_at(&mut input, page_bytes, bytes)?;
                metas.extend(second.filter(|meta| u64::from(meta.page_bytes) == page_bytes));
            }
        }
        let meta = metas.into_iter().max_by_key(|meta| meta.transaction);
        let meta = meta.ok_or(BoltError::Foreign)?;
        let page_bytes = u64::from(meta.page_bytes);
        let needs = meta.pages.saturating_mul(page_bytes);
        if needs > bytes {
            return Err(BoltError::Short { has: bytes, needs });
        }
        Ok(Self { input, page_bytes, pages: meta.pages, root: meta.root })
    }

    /// Returns the buckets and their names, in the order of the names.
    ///
    /// # Errors
    /// The database is damaged, or has more than `most`.
    pub fn buckets(&mut self, most: usize) -> Result<Vec<(Bytes, Bucket)>, BoltError> {
        let page = self.root;
        let mut entries = self.entries(&Bucket(Root::Page(page)));
        let mut buckets = Vec::new();
        while let Some(entry) = entries.next()? {
            if entry.is_bucket {
                if buckets.len() == most {
                    return Err(BoltError::Damaged { page, why: "it has too many buckets" });
                }
                let bucket = Bucket::read(&entry.value, page)?;
                // Not a part of its page, which would be kept as long as this is.
                buckets.push((Bytes::copy_from_slice(&entry.key), bucket));
            }
        }
        Ok(buckets)
    }

    /// Reads the entries of a bucket, in the order of their keys.
    pub fn entries(&mut self, bucket: &Bucket) -> Entries<'_, R> {
        let left = self.pages;
        let start = Some(bucket.0.clone());
        Entries { database: self, start, path: Vec::new(), last: None, left }
    }

    /// Reads a page. `left` is the number of pages that may still be read: no page has two parents,
    /// so a tree that needs more than there are goes in circles.
    fn page(&mut self, id: u64, left: &mut u64) -> Result<Page, BoltError> {
        let damaged = |why| BoltError::Damaged { page: id, why };
        if id < 2 || id >= self.pages {
            return Err(damaged("there is no such page"));
        }
        self.input.seek(SeekFrom::Start(id * self.page_bytes))?;
        let mut header = [0; PAGE_HEADER_BYTES];
        self.input.read_exact(&mut header)?;
        let header = PageHeader::read(&header);
        if header.id != id {
            return Err(damaged("it has the number of another page"));
        }
        let pages = 1 + u64::from(header.overflow);
        if pages > self.pages - id {
            return Err(damaged("it goes beyond the end"));
        }
        *left = left.checked_sub(pages).ok_or_else(|| damaged("pages have two parents"))?;
        let most = match header.flags {
            format::BRANCH => BRANCH_BYTES_MAX,
            format::LEAF => LEAF_BYTES_MAX,
            _ => return Err(damaged("it is no page of a bucket")),
        };
        let bytes = pages * self.page_bytes;
        if bytes > most {
            return Err(damaged("it is too long"));
        }
        let mut rest = Vec::new();
        let wanted = bytes - PAGE_HEADER_BYTES as u64;
        if (&mut self.input).take(wanted).read_to_end(&mut rest)? as u64 != wanted {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Page::read(header, rest.into())
    }
}

impl Bucket {
    /// Reads where a bucket is, from the value of its name in a page.
    fn read(value: &Bytes, page: u64) -> Result<Self, BoltError> {
        let damaged = |why| BoltError::Damaged { page, why };
        let (root, _) = value.split_first_chunk::<8>().ok_or_else(|| damaged("no bucket"))?;
        if value.len() < format::BUCKET_HEADER_BYTES {
            return Err(damaged("a bucket is cut short"));
        }
        match u64::from_le_bytes(*root) {
            0 => {
                let inline = &value[format::BUCKET_HEADER_BYTES..];
                Ok(Self(Root::Inline(Bytes::copy_from_slice(inline))))
            }
            root => Ok(Self(Root::Page(root))),
        }
    }
}

/// The entries of a bucket, one after the other.
#[derive(Debug)]
pub struct Entries<'a, R> {
    database: &'a mut Database<R>,
    /// The root, before the first entry.
    start: Option<Root>,
    /// The pages from the root down to that of the next entry.
    path: Vec<Page>,
    /// The last key.
    last: Option<Bytes>,
    /// Pages that may still be read.
    left: u64,
}

impl<R: Read + Seek> Entries<'_, R> {
    /// Returns the next entry; `None` after the last one.
    ///
    /// # Errors
    /// The database is damaged, or cannot be read.
    #[expect(clippy::should_implement_trait, reason = "as the library's scans have it")]
    pub fn next(&mut self) -> Result<Option<Entry>, BoltError> {
        match self.start.take() {
            Some(Root::Page(id)) => {
                let page = self.database.page(id, &mut self.left)?;
                self.path.push(page);
            }
            Some(Root::Inline(bytes)) => self.path.push(Page::inline(&bytes)?),
            None => {}
        }
        while let Some(page) = self.path.last_mut() {
            let id = page.id();
            if !page.is_leaf() {
                match page.next_child()? {
                    Some(child) if self.path.len() < DEPTH_MAX => {
                        let child = self.database.page(child, &mut self.left)?;
                        self.path.push(child);
                    }
                    Some(_) => {
                        let why = "a bucket has too many levels";
                        return Err(BoltError::Damaged { page: id, why });
                    }
                    None => _ = self.path.pop(),
                }
                continue;
            }
            let Some(entry) = page.next_entry()? else {
                self.path.pop();
                continue;
            };
            if self.last.as_ref().is_some_and(|last| *last >= entry.key) {
                return Err(BoltError::Damaged { page: id, why: "keys are out of order" });
            }
            self.last = Some(Bytes::copy_from_slice(&entry.key));
            return Ok(Some(entry));
        }
        Ok(None)
    }
}

/// Reads the meta page that begins at an offset, if there is a valid one.
fn meta_at(input: &mut (impl Read + Seek), at: u64, bytes: u64) -> Result<Option<Meta>, BoltError> {
    let length = PAGE_HEADER_BYTES + META_BYTES;
    if at + length as u64 > bytes {
        return Ok(None);
    }
    input.seek(SeekFrom::Start(at))?;
    let mut header = [0; PAGE_HEADER_BYTES];
    let mut meta = [0; META_BYTES];
    input.read_exact(&mut header)?;
    input.read_exact(&mut meta)?;
    let is_meta = PageHeader::read(&header).flags & format::META != 0;
    Ok(Meta::read(&meta).filter(|_| is_meta))
}
