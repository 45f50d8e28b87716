//! Lines at the prompt, and the arguments of the command.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use dkv::untrusted::{arguments, line};

use crate::parts::{Parts, join};

pub(super) fn read(input: &[u8]) {
    let mut parts = Parts::new(input);
    if parts.byte().is_multiple_of(4) {
        let mut words = Vec::new();
        while let Some(word) = parts.piece() {
            words.push(OsString::from_vec(word.to_vec()));
        }
        let _ = arguments(words);
        return;
    }
    let text = parts.rest();
    match line(text) {
        Ok(Some(words)) => {
            let again = line(words.as_bytes());
            assert_eq!(again.as_ref(), Ok(&Some(words)), "{text:?}");
        }
        Ok(None) => {}
        Err(error) => super::assert_presentable(&error.to_string()),
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let lines = [
        "R,key",
        "W,key,a value, with commas",
        "D,key",
        "T,100",
        "put \"a key\\x00\\n\" 'some value' if-revision 18446744073709551615",
        "get k eventual",
        "delete k if-present",
        "status --json",
        "kill coordinator",
        "wait 86400000",
        "# nothing",
    ];
    let words: [&[&str]; 6] = [
        &["127.0.0.1:4400", "W,a,b", "R,a"],
        &["[::1]:4400,localhost", "put", "k", "v", "if-absent"],
        &["local", "--nodes", "3", "--", "R,a"],
        &["drill", "coordinator-kill", "--time", "5s"],
        &["127.0.0.1", "load", "file", "--verify"],
        &["127.0.0.1", "token", "create", "node", "--life", "1h", "--uses", "3"],
    ];
    let lines = lines.map(|line| [b"\x01", line.as_bytes()].concat());
    let words = words.map(|words| join(words.iter().map(|word| word.as_bytes())));
    lines.into_iter().chain(words.map(|words| [&[0], &words[..]].concat())).collect()
}
