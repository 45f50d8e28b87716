//! The versions of lists, and who wrote and read them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::finding;
use crate::anomaly::Anomaly;
use crate::finding::Finding;
use crate::history::{Fate, ListOperation, Transaction};

/// Findings of single reads that are reported; more say nothing new.
const FINDINGS_MAX: usize = 32;

/// A list that begins with a put, or with nothing, and the elements that were appended to it.
#[derive(Debug, Default)]
pub(super) struct Segment {
    /// The writer of each element, in order.
    pub(super) writers: Vec<usize>,
    elements: Vec<u32>,
    /// The transactions that read it, with the number of elements that they saw.
    pub(super) reads: Vec<(usize, usize)>,
    /// The transactions that read it and then replaced it.
    pub(super) replaced_by: Vec<usize>,
    /// A read that showed the whole list.
    shown_by: usize,
}

/// A key.
#[derive(Debug, Default)]
pub(super) struct Key<'a> {
    pub(super) name: &'a str,
    has_puts: bool,
    /// The segments: first that of the empty list, then those of puts.
    pub(super) segments: Vec<Segment>,
    of_puts: HashMap<u32, usize>,
    /// The acknowledged transactions of which an append was not seen by anybody, and must follow
    /// what was seen. Empty if the key has puts.
    pub(super) unseen: Vec<usize>,
}

/// A write of an element.
#[derive(Clone, Copy, Debug)]
struct Write {
    transaction: usize,
    is_put: bool,
    /// The write of its transaction to the key before it.
    before: Option<u32>,
    /// Whether it is the last write of its transaction to the key.
    is_last: bool,
    seen: bool,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Lists<'a> {
    pub(super) keys: Vec<Key<'a>>,
    /// Whether anybody saw an effect of each transaction.
    pub(super) observed: Vec<bool>,
    names: HashMap<&'a str, usize>,
    elements: HashMap<(usize, &'a str), u32>,
    writes: Vec<Write>,
    /// What each transaction read first of a key that it wrote: segment and length.
    pub(super) read_first: HashMap<(usize, usize), (usize, usize)>,
}

impl<'a> Lists<'a> {
    /// Takes in all transactions, and returns what single reads contradict.
    pub(super) fn read(transactions: &'a [Transaction]) -> (Self, Vec<Finding>) {
        let mut lists = Self { observed: vec![false; transactions.len()], ..Self::default() };
        let mut findings = Vec::new();
        for (place, transaction) in transactions.iter().enumerate() {
            lists.note_writes(transactions, place, transaction, &mut findings);
        }
        for (place, transaction) in transactions.iter().enumerate() {
            if transaction.result == Fate::Ok {
                lists.note_reads(transactions, place, transaction, &mut findings);
            }
        }
        lists.note_unseen(transactions);
        findings.truncate(FINDINGS_MAX);
        (lists, findings)
    }

    fn key(&mut self, name: &'a str) -> usize {
        let next = self.keys.len();
        let keys = &mut self.keys;
        *self.names.entry(name).or_insert_with(|| {
            keys.push(Key { name, segments: vec![Segment::default()], ..Key::default() });
            next
        })
    }

    fn note_writes(
        &mut self,
        transactions: &[Transaction],
        place: usize,
        transaction: &'a Transaction,
        findings: &mut Vec<Finding>,
    ) {
        let mut last: HashMap<usize, u32> = HashMap::new();
        for operation in &transaction.ops {
            let (key, element, is_put) = match operation {
                ListOperation::Append(key, element) => (key, element, false),
                ListOperation::Put(key, element) => (key, element, true),
                ListOperation::Read(..) => continue,
            };
            let key = self.key(key);
            let number = self.writes.len() as u32;
            match self.elements.entry((key, element)) {
                Entry::Vacant(entry) => _ = entry.insert(number),
                Entry::Occupied(entry) => {
                    let other = self.writes[*entry.get() as usize].transaction;
                    let name = self.keys[key].name;
                    let text = format!("the element {element:?} of {name:?} was written twice");
                    let places = if other == place { vec![place] } else { vec![other, place] };
                    findings.push(finding(Anomaly::Ambiguous, text, transactions, &places));
                    continue;
                }
            }
            let before = last.insert(key, number);
            let (transaction, is_last, seen) = (place, true, false);
            self.writes.push(Write { transaction, is_put, before, is_last, seen });
            if let Some(before) = before {
                self.writes[before as usize].is_last = false;
            }
            if is_put {
                self.keys[key].has_puts = true;
            }
        }
    }

    fn note_reads(
        &mut self,
        transactions: &[Transaction],
        place: usize,
        transaction: &'a Transaction,
        findings: &mut Vec<Finding>,
    ) {
        // What the transaction knows of each key, and how much of that it wrote itself.
        let mut known: HashMap<usize, Known<'a>> = HashMap::new();
        for operation in &transaction.ops {
            let key = self.key(operation.key());
            let own = known.entry(key).or_default();
            let list = match operation {
                ListOperation::Append(_, element) => {
                    own.written.push(element);
                    continue;
                }
                ListOperation::Put(_, element) => {
                    if let (false, Some((segment, _))) = (own.is_put, own.read) {
                        self.keys[key].segments[segment].replaced_by.push(place);
                    }
                    (own.is_put, own.written) = (true, vec![element]);
                    continue;
                }
                ListOperation::Read(_, None) => continue,
                ListOperation::Read(_, Some(list)) => list,
            };
            let Some(rest) = own.strip(list) else {
                let text = format!(
                    "a read of {:?} does not show what its transaction wrote or read before",
                    self.keys[key].name
                );
                findings.push(finding(Anomaly::Internal, text, transactions, &[place]));
                continue;
            };
            let is_put = own.is_put;
            let seen = self.place_list(transactions, place, key, list, findings);
            let Some(segment) = seen else { continue };
            if is_put {
                continue;
            }
            let own = known.entry(key).or_default();
            if own.read.is_none() {
                own.read = Some((segment, rest));
                own.list = &list[..rest];
                self.read_first.insert((place, key), (segment, rest));
                self.keys[key].segments[segment].reads.push((place, rest));
                self.check_last(transactions, place, key, &list[..rest], findings);
            }
        }
    }

    /// Puts a list that was read in its segment. Returns the segment, unless the list is no list of
    /// the key.
    fn place_list(
        &mut self,
        transactions: &[Transaction],
        place: usize,
        key: usize,
        list: &'a [String],
        findings: &mut Vec<Finding>,
    ) -> Option<usize> {
        let name = self.keys[key].name;
        let mut find = |anomaly, text, others: &[usize]| {
            let places: Vec<usize> = others.iter().copied().chain([place]).collect();
            findings.push(finding(anomaly, text, transactions, &places));
        };
        let mut numbers = Vec::with_capacity(list.len());
        for element in list {
            let Some(number) = self.elements.get(&(key, element.as_str())) else {
                let text = format!("a read of {name:?} shows {element:?}, which nobody wrote");
                find(Anomaly::Garbage, text, &[]);
                return None;
            };
            let write = &mut self.writes[*number as usize];
            write.seen = true;
            self.observed[write.transaction] = true;
            if transactions[write.transaction].result == Fate::Failed {
                let text = format!("a read of {name:?} shows {element:?}, whose write failed");
                find(Anomaly::G1a, text, &[write.transaction]);
            }
            numbers.push(*number);
        }
        let first = numbers.first().filter(|number| self.writes[**number as usize].is_put);
        if let Some(at) = numbers.iter().skip(1).find(|at| self.writes[**at as usize].is_put) {
            let other = self.writes[*at as usize].transaction;
            let text = format!("a read of {name:?} shows elements before one that replaced them");
            find(Anomaly::Incompatible, text, &[other]);
            return None;
        }
        // Elements of others between two of one transaction make a cycle.
        let is_alone = |(at, number): (usize, &u32)| {
            let write = &self.writes[*number as usize];
            let before = write.before.filter(|_| !write.is_put)?;
            let is_there = at > 0 && (numbers[at - 1] == before || numbers[..at].contains(&before));
            (!is_there).then_some(write.transaction)
        };
        if let Some(other) = numbers.iter().enumerate().find_map(is_alone) {
            let text =
                format!("a read of {name:?} shows what a transaction wrote in another order");
            find(Anomaly::Internal, text, &[other]);
            return None;
        }
        let Key { segments, of_puts, .. } = &mut self.keys[key];
        let segment = match first {
            None => 0,
            Some(first) => *of_puts.entry(*first).or_insert_with(|| {
                segments.push(Segment::default());
                segments.len() - 1
            }),
        };
        let longest = &mut segments[segment];
        let both = longest.elements.len().min(numbers.len());
        if longest.elements[..both] != numbers[..both] {
            let mut sorted = numbers.clone();
            sorted.sort_unstable();
            sorted.dedup();
            if sorted.len() < numbers.len() {
                let text = format!("a read of {name:?} shows an element twice");
                find(Anomaly::Duplicate, text, &[]);
            } else {
                let text = format!("two reads of {name:?} show its elements in different orders");
                let other = Some(longest.shown_by).filter(|other| *other != place);
                find(Anomaly::Incompatible, text, other.as_slice());
            }
            return None;
        }
        if numbers.len() > longest.elements.len() {
            let mut sorted = numbers.clone();
            sorted.sort_unstable();
            if sorted.windows(2).any(|two| two[0] == two[1]) {
                let text = format!("a read of {name:?} shows an element twice");
                find(Anomaly::Duplicate, text, &[]);
                return None;
            }
            let writers = numbers[both..].iter().map(|it| self.writes[*it as usize].transaction);
            longest.writers.extend(writers);
            longest.elements = numbers;
            longest.shown_by = place;
        }
        Some(segment)
    }

    /// Checks that the last element of a list is the last of its transaction.
    fn check_last(
        &self,
        transactions: &[Transaction],
        place: usize,
        key: usize,
        list: &[String],
        findings: &mut Vec<Finding>,
    ) {
        let Some(last) = list.last() else { return };
        let Some(number) = self.elements.get(&(key, last.as_str())) else { return };
        let write = self.writes[*number as usize];
        if !write.is_last && write.transaction != place {
            let name = self.keys[key].name;
            let text = format!("a read of {name:?} ends within what one transaction wrote");
            let places = [write.transaction, place];
            findings.push(finding(Anomaly::G1b, text, transactions, &places));
        }
    }

    fn note_unseen(&mut self, transactions: &[Transaction]) {
        for ((key, _), number) in &self.elements {
            let (write, key) = (self.writes[*number as usize], &mut self.keys[*key]);
            let is_ok = transactions[write.transaction].result == Fate::Ok;
            if is_ok && !write.seen && !key.has_puts {
                key.unseen.push(write.transaction);
            }
        }
        for key in &mut self.keys {
            key.unseen.sort_unstable();
            key.unseen.dedup();
        }
    }
}

/// What a transaction knows of a key.
#[derive(Default)]
struct Known<'a> {
    /// The segment that it read, and the length of what others had written.
    read: Option<(usize, usize)>,
    /// What others had written.
    list: &'a [String],
    is_put: bool,
    /// What it has written since, or all if it has put.
    written: Vec<&'a String>,
}

impl Known<'_> {
    /// Returns the length of the part of a list that others wrote; `None` if the list is not what
    /// the transaction must see.
    fn strip(&self, list: &[String]) -> Option<usize> {
        let rest = list.len().checked_sub(self.written.len())?;
        let is_own = list[rest..].iter().eq(self.written.iter().copied());
        let is_rest = match (self.is_put, self.read) {
            (true, _) => rest == 0,
            (false, Some(_)) => list[..rest] == *self.list,
            (false, None) => true,
        };
        (is_own && is_rest).then_some(rest)
    }
}
