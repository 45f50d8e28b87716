//! Tests of the names under which a gateway answers, as its options say.

use dkv_listener::host_name::HostName;
use hyper::header::{HOST, USER_AGENT};
use hyper::{HeaderMap, Method, Uri, Version};

use super::*;

const LOOPBACK: ([u8; 4], u16) = ([127, 0, 0, 1], 4480);
const EVERYWHERE: ([u8; 4], u16) = ([0, 0, 0, 0], 4480);
/// Names that requests come under: its own, and those of its machine, of `--host` and of nobody.
const NAMES: [&str; 4] = ["localhost:4480", "10.0.0.7:4480", "kv.example", "evil.example"];

/// Returns which of the names are answered to: those of a program, and those of a browser.
fn answered(address: ([u8; 4], u16), args: &Args) -> [Vec<&'static str>; 2] {
    let names = accepted_names(address.into(), args);
    [false, true].map(|browser| {
        let is_answered = |name: &&&str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, name.parse().unwrap());
            if browser {
                headers.insert(USER_AGENT, "Mozilla/5.0".parse().unwrap());
            }
            let (method, uri) = (Method::GET, Uri::from_static("/v1/kv/k"));
            let head =
                Head { method: &method, uri: &uri, version: Version::HTTP_11, headers: &headers };
            names.check(&head).is_ok()
        };
        NAMES.iter().filter(is_answered).copied().collect()
    })
}

#[test]
fn the_options_say_which_names_are_answered_to() {
    let open = Args::default();
    let given = Args { host: vec![HostName::parse("kv.example").unwrap()], ..Args::default() };
    let tokens = |args: &Args| Args { with_authentication: true, ..args.clone() };
    let none = |args: &Args| Args { without_authentication: true, ..args.clone() };
    let [local, address, own, _] = NAMES;
    for (what, at, args, program, browser) in [
        ("loopback", LOOPBACK, open.clone(), vec![local], vec![local]),
        ("loopback, --host", LOOPBACK, given.clone(), vec![local, own], vec![local, own]),
        ("loopback, tokens", LOOPBACK, tokens(&open), NAMES.to_vec(), NAMES.to_vec()),
        (
            "loopback, --host, tokens",
            LOOPBACK,
            tokens(&given),
            vec![local, address, own],
            vec![local, address, own],
        ),
        ("everywhere has tokens", EVERYWHERE, open.clone(), NAMES.to_vec(), NAMES.to_vec()),
        (
            "everywhere, --host, tokens",
            EVERYWHERE,
            given.clone(),
            vec![local, address, own],
            vec![local, address, own],
        ),
        ("everywhere, no tokens", EVERYWHERE, none(&open), NAMES.to_vec(), vec![local, address]),
        (
            "everywhere, --host, no tokens",
            EVERYWHERE,
            none(&given),
            vec![local, address, own],
            vec![local, address, own],
        ),
    ] {
        assert_eq!(answered(at, &args), [program, browser], "{what}");
    }
}
