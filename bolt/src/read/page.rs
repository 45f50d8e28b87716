//! A page of a bucket, whose elements are checked as they are read.

use bytes::Bytes;

use super::Entry;
use crate::error::BoltError;
use crate::format::{self, ELEMENT_BYTES, PAGE_HEADER_BYTES, PageHeader};

/// A page of a bucket, and how far it is read.
#[derive(Debug)]
pub(super) struct Page {
    header: PageHeader,
    /// What follows its header.
    rest: Bytes,
    /// The next element.
    next: usize,
    /// End of the last element's bytes.
    end: usize,
}

impl Page {
    /// Takes a page that was read.
    ///
    /// # Errors
    /// It has fewer bytes than elements.
    pub(super) fn read(header: PageHeader, rest: Bytes) -> Result<Self, BoltError> {
        let end = usize::from(header.count) * ELEMENT_BYTES;
        if end > rest.len() {
            let why = "it has more elements than fit";
            return Err(BoltError::Damaged { page: header.id, why });
        }
        Ok(Self { header, rest, next: 0, end })
    }

    /// Takes the only page of a bucket that lies inline.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn inline(bytes: &Bytes) -> Result<Self, BoltError> {
        let header = bytes.first_chunk().map(PageHeader::read);
        match header {
            Some(header) if header.flags == format::LEAF && header.overflow == 0 => {
                Self::read(header, bytes.slice(PAGE_HEADER_BYTES..))
            }
            _ => Err(BoltError::Damaged { page: 0, why: "an inline bucket has no page" }),
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.header.id
    }

    pub(super) fn is_leaf(&self) -> bool {
        self.header.flags == format::LEAF
    }

    /// Returns the page of the next child; `None` after the last one.
    ///
    /// # Errors
    /// The element is cut short.
    pub(super) fn next_child(&mut self) -> Result<Option<u64>, BoltError> {
        let Some((at, element)) = self.element() else { return Ok(None) };
        let (position, key, child) = (number(element, 0), number(element, 4), long(element, 8));
        // The key is that of the child's first entry, which is checked there.
        self.part(at, position, key)?;
        Ok(Some(child))
    }

    /// Returns the next entry; `None` after the last one.
    ///
    /// # Errors
    /// The element is cut short.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>, BoltError> {
        let Some((at, element)) = self.element() else { return Ok(None) };
        let flags = number(element, 0);
        let (position, key, value) = (number(element, 4), number(element, 8), number(element, 12));
        let key = self.part(at, position, key)?;
        let value = self.part(self.end, 0, value)?;
        Ok(Some(Entry { key, value, is_bucket: flags & format::BUCKET != 0 }))
    }

    /// Returns where the next element begins, and its fixed part.
    fn element(&mut self) -> Option<(usize, [u8; ELEMENT_BYTES])> {
        if self.next == usize::from(self.header.count) {
            return None;
        }
        let at = self.next * ELEMENT_BYTES;
        self.next += 1;
        Some((at, *self.rest.get(at..)?.first_chunk()?))
    }

    /// Returns bytes that begin `position` after `from`. They must follow those of the element
    /// before: bytes that many elements share would be read as often.
    fn part(&mut self, from: usize, position: u32, length: u32) -> Result<Bytes, BoltError> {
        let damaged = |why| BoltError::Damaged { page: self.header.id, why };
        let start = from.checked_add(position as usize).ok_or_else(|| damaged("no offset"))?;
        let end = start.checked_add(length as usize).ok_or_else(|| damaged("no length"))?;
        if start < self.end {
            return Err(damaged("elements overlap"));
        }
        if end > self.rest.len() {
            return Err(damaged("an element goes beyond its page"));
        }
        self.end = end;
        Ok(self.rest.slice(start..end))
    }
}

fn number(element: [u8; ELEMENT_BYTES], at: usize) -> u32 {
    let bytes = element.get(at..).and_then(<[u8]>::first_chunk);
    bytes.copied().map_or(0, u32::from_le_bytes)
}

fn long(element: [u8; ELEMENT_BYTES], at: usize) -> u64 {
    let bytes = element.get(at..).and_then(<[u8]>::first_chunk);
    bytes.copied().map_or(0, u64::from_le_bytes)
}
