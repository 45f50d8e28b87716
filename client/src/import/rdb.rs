//! Dumps of Redis and Valkey (RDB), versions 1 to 12.
//!
//! Only strings become keys. Lists, sets, hashes and the like are read over and counted.

use std::io::{self, Read};

use super::{Found, ImportError, LeftOut, lzf};

/// Longest string that is read: more than any key or value may have.
const STRING_BYTES_MAX: u64 = 512 << 20;
/// Latest version of the format that is known.
const VERSION_MAX: u32 = 12;

const FUNCTION: u8 = 245;
const MODULE_AUX: u8 = 247;
const IDLE: u8 = 248;
const FREQ: u8 = 249;
const AUX: u8 = 250;
const RESIZE: u8 = 251;
const EXPIRY_MS: u8 = 252;
const EXPIRY_S: u8 = 253;
const SELECT: u8 = 254;
const END: u8 = 255;
const SLOT_INFO: u8 = 244;

/// A length, or how a string is encoded.
enum Length {
    Plain(u64),
    Encoded(u8),
}

struct Reader<R> {
    input: R,
    /// The checksum of what was read.
    checksum: u64,
}

/// Checksums of single bytes: CRC-64 as Redis computes it, with the polynomial of Jones reflected.
const CHECKSUMS: [u64; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut rest = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            rest = (rest >> 1) ^ (if rest & 1 == 1 { 0x95ac_9329_ac4b_c9b5 } else { 0 });
            bit += 1;
        }
        table[byte] = rest;
        byte += 1;
    }
    table
};

fn checksum(before: u64, bytes: &[u8]) -> u64 {
    let add = |sum: u64, byte: &u8| CHECKSUMS[usize::from(sum as u8 ^ byte)] ^ (sum >> 8);
    bytes.iter().fold(before, add)
}

/// Reads all keys. `now_ms` decides which have expired.
///
/// # Errors
/// It is no such dump, is damaged or cut short, or has keys in several databases.
pub(super) fn read(
    input: impl Read,
    now_ms: u64,
    left_out: &mut LeftOut,
    mut each: impl FnMut(Found) -> io::Result<()>,
) -> Result<(), ImportError> {
    let mut reader = Reader { input, checksum: 0 };
    let head: [u8; 9] = reader.bytes()?;
    let version = head.strip_prefix(b"REDIS").and_then(|it| std::str::from_utf8(it).ok());
    let version = version.and_then(|version| version.parse::<u32>().ok());
    match version {
        Some(1..=VERSION_MAX) => {}
        Some(other) => {
            return Err(malformed(format!("it is of version {other}, which is unknown")));
        }
        None => return Err(malformed("it is no dump of Redis")),
    }
    let mut deadline_ms = None;
    // The database that is being read, and the one that had keys.
    let (mut database, mut with_keys) = (0, None);
    loop {
        match reader.byte()? {
            END => return reader.end(version),
            EXPIRY_MS => deadline_ms = Some(u64::from_le_bytes(reader.bytes()?)),
            EXPIRY_S => {
                deadline_ms = Some(u64::from(u32::from_le_bytes(reader.bytes()?)) * 1000);
            }
            SELECT => database = reader.plain()?,
            IDLE => _ = reader.plain()?,
            FREQ => _ = reader.byte()?,
            RESIZE => _ = (reader.plain()?, reader.plain()?),
            SLOT_INFO => _ = (reader.plain()?, reader.plain()?, reader.plain()?),
            AUX => _ = (reader.string()?, reader.string()?),
            FUNCTION => _ = reader.string()?,
            MODULE_AUX => {
                reader.plain()?;
                reader.module()?;
            }
            kind => {
                let key = reader.string()?;
                let deadline_ms = deadline_ms.take();
                if kind != 0 {
                    reader.pass_over(kind)?;
                    left_out.other_types += 1;
                    continue;
                }
                let value = reader.string()?;
                let ttl_ms = deadline_ms.map(|at| at.saturating_sub(now_ms));
                if ttl_ms == Some(0) {
                    left_out.expired += 1;
                } else {
                    let first = *with_keys.get_or_insert(database);
                    if first != database {
                        return Err(malformed(format!(
                            "it has keys in the databases {first} and {database}, which may be of \
                             the same names; import one from the server itself instead, as in dkv \
                             import redis://HOST/{first}"
                        )));
                    }
                    each(Found { key, value, ttl_ms })?;
                }
            }
        }
    }
}

fn malformed(why: impl Into<String>) -> ImportError {
    ImportError::Malformed(why.into())
}

impl<R: Read> Reader<R> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], ImportError> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => malformed("it is cut short"),
            _ => error.into(),
        })?;
        self.checksum = checksum(self.checksum, &bytes);
        Ok(bytes)
    }

    /// Compares the checksum at the end, which is zero if the server was told to leave it out.
    fn end(&mut self, version: Option<u32>) -> Result<(), ImportError> {
        // It came with this version.
        if version.is_none_or(|version| version < 5) {
            return Ok(());
        }
        let computed = self.checksum;
        let stored = u64::from_le_bytes(self.bytes()?);
        if stored != 0 && stored != computed {
            return Err(malformed("it is damaged: its checksum is another one"));
        }
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, ImportError> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    fn length(&mut self) -> Result<Length, ImportError> {
        let first = self.byte()?;
        Ok(match (first >> 6, first) {
            (0, _) => Length::Plain(first.into()),
            (1, _) => Length::Plain((u64::from(first & 63) << 8) | u64::from(self.byte()?)),
            (2, 0x80) => Length::Plain(u32::from_be_bytes(self.bytes()?).into()),
            (2, 0x81) => Length::Plain(u64::from_be_bytes(self.bytes()?)),
            (3, _) => Length::Encoded(first & 63),
            _ => return Err(malformed("a length is malformed")),
        })
    }

    fn plain(&mut self) -> Result<u64, ImportError> {
        match self.length()? {
            Length::Plain(length) => Ok(length),
            Length::Encoded(_) => Err(malformed("a length is malformed")),
        }
    }

    fn raw(&mut self, length: u64) -> Result<Vec<u8>, ImportError> {
        if length > STRING_BYTES_MAX {
            return Err(malformed(format!("a string has {length} bytes, which is too long")));
        }
        // Allocates what is there, not what is claimed.
        let mut raw = Vec::new();
        let read = Read::take(&mut self.input, length).read_to_end(&mut raw)?;
        self.checksum = checksum(self.checksum, &raw);
        if read as u64 == length { Ok(raw) } else { Err(malformed("it is cut short")) }
    }

    fn string(&mut self) -> Result<Vec<u8>, ImportError> {
        match self.length()? {
            Length::Plain(length) => self.raw(length),
            Length::Encoded(0) => Ok(i8::from_le_bytes(self.bytes()?).to_string().into_bytes()),
            Length::Encoded(1) => Ok(i16::from_le_bytes(self.bytes()?).to_string().into_bytes()),
            Length::Encoded(2) => Ok(i32::from_le_bytes(self.bytes()?).to_string().into_bytes()),
            Length::Encoded(3) => {
                let (packed, length) = (self.plain()?, self.plain()?);
                let packed = self.raw(packed)?;
                let length = usize::try_from(length).ok();
                let length = length.filter(|it| *it as u64 <= STRING_BYTES_MAX);
                let text = length.and_then(|length| lzf::decompress(&packed, length));
                text.ok_or_else(|| malformed("a compressed string is malformed"))
            }
            Length::Encoded(_) => Err(malformed("a string is of an unknown encoding")),
        }
    }

    fn strings(&mut self, count: u64) -> Result<(), ImportError> {
        (0..count).try_for_each(|_| self.string().map(drop))
    }

    /// Reads over the value of a key that is no string.
    fn pass_over(&mut self, kind: u8) -> Result<(), ImportError> {
        match kind {
            // Lists and sets.
            1 | 2 | 14 => {
                let count = self.plain()?;
                self.strings(count)
            }
            // Sorted sets with scores as text.
            3 => {
                for _ in 0..self.plain()? {
                    self.string()?;
                    match self.byte()? {
                        253..=255 => {}
                        length => _ = self.raw(length.into())?,
                    }
                }
                Ok(())
            }
            // Hashes.
            4 => {
                let count = self.plain()?;
                self.strings(count.saturating_mul(2))
            }
            // Sorted sets with binary scores.
            5 => {
                for _ in 0..self.plain()? {
                    self.string()?;
                    self.bytes::<8>()?;
                }
                Ok(())
            }
            7 => self.module(),
            // Everything that is packed into one string.
            9..=13 | 16 | 17 | 20 => self.string().map(drop),
            // Lists of nodes.
            18 => {
                for _ in 0..self.plain()? {
                    self.plain()?;
                    self.string()?;
                }
                Ok(())
            }
            15 | 19 | 21 => self.stream(kind),
            other => Err(malformed(format!(
                "it has a key of the unknown type {other}; import from the server itself instead, \
                 as in dkv import redis://HOST"
            ))),
        }
    }

    fn module(&mut self) -> Result<(), ImportError> {
        self.plain()?;
        loop {
            match self.plain()? {
                0 => return Ok(()),
                1 | 2 => _ = self.plain()?,
                3 => _ = self.bytes::<4>()?,
                4 => _ = self.bytes::<8>()?,
                5 => _ = self.string()?,
                _ => return Err(malformed("the value of a module is malformed")),
            }
        }
    }

    fn stream(&mut self, kind: u8) -> Result<(), ImportError> {
        let nodes = self.plain()?;
        self.strings(nodes.saturating_mul(2))?;
        for _ in 0..if kind == 15 { 3 } else { 8 } {
            self.plain()?;
        }
        for _ in 0..self.plain()? {
            self.string()?;
            for _ in 0..if kind == 15 { 2 } else { 3 } {
                self.plain()?;
            }
            for _ in 0..self.plain()? {
                self.bytes::<16>()?;
                self.bytes::<8>()?;
                self.plain()?;
            }
            for _ in 0..self.plain()? {
                self.string()?;
                self.bytes::<8>()?;
                if kind == 21 {
                    self.bytes::<8>()?;
                }
                for _ in 0..self.plain()? {
                    self.bytes::<16>()?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(dump: &[u8]) -> Result<(Vec<Found>, u64, u64), String> {
        let (mut found, mut left_out) = (Vec::new(), LeftOut::default());
        let read = read(dump, 1_000_000, &mut left_out, |it| {
            found.push(it);
            Ok(())
        });
        read.map_err(|error| error.to_string())?;
        Ok((found, left_out.other_types, left_out.expired))
    }

    fn dump() -> Vec<u8> {
        let mut dump = b"REDIS0011".to_vec();
        dump.extend(b"\xfa\x09redis-ver\x057.2.0\xfe\x00\xfb\x05\x02");
        dump.extend(b"\x00\x05color\x04blue");
        dump.extend(b"\x00\x03num\xc0\xfe");
        dump.extend([0xfc]);
        dump.extend(1_005_000_u64.to_le_bytes());
        dump.extend(b"\x00\x07session\x03Ada");
        dump.extend([0xfd]);
        dump.extend(999_u32.to_le_bytes());
        dump.extend(b"\x00\x04gone\x01x");
        // A list, a hash in a listpack, and a compressed string.
        dump.extend(b"\x01\x04list\x02\x01a\x01b");
        dump.extend(b"\x10\x04hash\x05.....");
        dump.extend(b"\x00\x04long\xc3\x04\x09\x00a\xc0\x00");
        dump.extend(b"\xff\x00\x00\x00\x00\x00\x00\x00\x00");
        dump
    }

    #[test]
    fn strings_come_with_their_expiry_and_others_are_counted() {
        let (found, other_types, expired) = all(&dump()).unwrap();
        let pair = |it: &Found| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            (text(&it.key), text(&it.value), it.ttl_ms)
        };
        let is = |key: &str, value: &str, ttl_ms| (key.to_owned(), value.to_owned(), ttl_ms);
        assert_eq!(
            found.iter().map(pair).collect::<Vec<_>>(),
            [
                is("color", "blue", None),
                is("num", "-2", None),
                is("session", "Ada", Some(5000)),
                is("long", "aaaaaaaaa", None)
            ]
        );
        assert_eq!((other_types, expired), (2, 1));
    }

    #[test]
    fn a_bit_that_changed_is_found() {
        assert_eq!(checksum(0, b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        let mut dump = dump();
        let end = dump.len() - 8;
        let sum = checksum(0, &dump[..end]);
        dump[end..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(all(&dump).unwrap().0.len(), 4);
        let value = dump.windows(4).position(|it| it == b"blue").unwrap();
        dump[value] ^= 1;
        assert!(all(&dump).unwrap_err().contains("its checksum is another one"));
        // Old versions have none.
        assert_eq!(all(b"REDIS0003\x00\x01a\x01b\xff").unwrap().0.len(), 1);
    }

    #[test]
    fn keys_of_several_databases_are_refused() {
        let of = |first: &[u8]| {
            let second = b"\xfe\x03\x00\x01a\x01c\xff\0\0\0\0\0\0\0\0";
            all(&[b"REDIS0011\xfe\x00", first, second].concat())
        };
        assert!(of(b"\x00\x01a\x01b").unwrap_err().contains("in the databases 0 and 3"));
        assert_eq!(of(b"\x01\x04list\x00").unwrap().0.len(), 1, "nothing else has a key");
    }

    #[test]
    fn what_is_cut_short_or_foreign_is_refused() {
        let dump = dump();
        for length in 0..dump.len() {
            assert!(all(&dump[..length]).is_err(), "{length}");
        }
        assert!(all(b"REDIS0099....").unwrap_err().contains("version 99"));
        assert!(all(b"{\"key\": 1}").unwrap_err().contains("no dump"));
        // A length that is not there allocates nothing.
        assert!(all(b"REDIS0011\x00\x80\x1f\xff\xff\xff").unwrap_err().contains("cut short"));
        assert!(all(b"REDIS0011\x00\x81\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
    }
}
