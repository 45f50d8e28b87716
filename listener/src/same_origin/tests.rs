//! Requests as browsers and programs send them.

use super::*;

const LOOPBACK: &str = "127.0.0.1:8080";
const OUTSIDE: &str = "10.0.0.20:8080";

/// What matters of the options of a face.
#[derive(Clone, Default)]
struct Args {
    host: Vec<HostName>,
    without_authentication: bool,
}

fn names(address: &str, args: Args) -> AcceptedNames {
    let address: SocketAddr = address.parse().unwrap();
    AcceptedNames {
        address,
        only_given: !args.host.is_empty(),
        given: args.host,
        needs_token: !args.without_authentication && !is_loopback(address),
    }
}

fn open() -> Args {
    Args { without_authentication: true, ..Args::default() }
}

fn given(hosts: &[&str], args: Args) -> Args {
    Args { host: hosts.iter().map(|host| HostName::parse(host).unwrap()).collect(), ..args }
}

fn status(names: &AcceptedNames, method: &str, target: &str, fields: &[(&str, &str)]) -> u16 {
    let mut request = http::Request::builder().method(method).uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (head, ()) = request.body(()).unwrap().into_parts();
    let http::request::Parts { method, uri, version, headers, .. } = &head;
    let head = Head { method, uri, version: *version, headers };
    names.check(&head).map_or_else(|foreign| foreign.status().as_u16(), |()| 200)
}

#[test]
fn on_loopback_a_page_does_not_come_in_under_a_false_name() {
    let own = names(LOOPBACK, Args::default());
    let at = |host| status(&own, "POST", "/v1/batch", &[("host", host)]);
    for good in ["127.0.0.1:8080", "localhost", "LOCALHOST:8080", "[::1]:8080", "[::1]"] {
        assert_eq!(at(good), 200, "{good}");
    }
    for bad in [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "localhost:8081",
        "127.0.0.1:80",
        "0.0.0.0:8080",
        "10.0.0.20:8080",
        "localhost.",
    ] {
        assert_eq!(at(bad), 421, "{bad}");
    }
    for bad in ["", "local host", "localhost:x", "localhost:99999", "[::1", "a@localhost", "::1"] {
        assert_eq!(at(bad), 400, "{bad}");
    }
    assert_eq!(status(&own, "GET", "/", &[]), 400);
    let both = [("host", "localhost"), ("host", "localhost")];
    assert_eq!(status(&own, "GET", "/", &both), 400);
    // A target with a host: HTTP/2, and HTTP/1.1 where it differs from the field.
    assert_eq!(status(&own, "GET", "http://evil.example/v1/kv/k", &[]), 421);
    assert_eq!(status(&own, "GET", "http://evil.example/", &[("host", "localhost")]), 421);
    assert_eq!(status(&own, "GET", "http://localhost/", &[("host", "evil.example")]), 421);
    assert_eq!(status(&own, "GET", "http://localhost:8080/", &[]), 200);
    // A gateway of loopback is one however it was started.
    let instance = names(LOOPBACK, open());
    assert_eq!(status(&instance, "PUT", "/kvs/k", &[("host", "evil.example")]), 421);
    // One name more, with any port or with one.
    let more = names(LOOPBACK, given(&["gateway.example", "other.example:9"], Args::default()));
    let at = |host| status(&more, "GET", "/v1/kv/k", &[("host", host)]);
    assert_eq!(
        ["Gateway.Example", "gateway.example:1", "other.example:9", "localhost:8080"].map(at),
        [200; 4]
    );
    assert_eq!(["other.example", "other.example:8", "evil.example"].map(at), [421; 3]);
}

#[test]
fn elsewhere_programs_may_use_any_name_and_browsers_a_known_one() {
    let any = names(OUTSIDE, open());
    let at = |host: &str, more: &[(&'static str, &'static str)]| {
        let fields: Vec<(&str, &str)> =
            [("host", host)].into_iter().chain(more.iter().copied()).collect();
        status(&any, "GET", "/v1/kv/k", &fields)
    };
    let browser = [
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
        ("accept-language", "*"),
        ("origin", "http://evil.example"),
        ("referer", "http://evil.example/x"),
        ("sec-fetch-site", "same-origin"),
    ];
    for name in ["evil.example", "gateway:8080"] {
        assert_eq!(at(name, &[("user-agent", "curl/8.5.0")]), 200);
        assert_eq!(at(name, &[]), 200);
        for field in browser {
            assert_eq!(at(name, &[field]), 421, "{field:?}");
        }
    }
    for address in ["10.0.0.20:8080", "localhost:18080", "192.168.7.1", "[fd00::1]:8080"] {
        assert_eq!(at(address, &browser[..2]), 200, "{address}");
    }
    let named = names(OUTSIDE, given(&["gateway.example"], open()));
    let at = |host| status(&named, "GET", "/v1/kv/k", &[("host", host)]);
    assert_eq!((at("gateway.example:8080"), at("evil.example")), (200, 421));
    // With tokens a page under a false name has none.
    let tokens = names(OUTSIDE, Args::default());
    assert_eq!(status(&tokens, "GET", "/v1/kv/k", &[("host", "any.example"), browser[0]]), 200);
    let tokens = names(OUTSIDE, given(&["gateway.example"], Args::default()));
    assert_eq!(status(&tokens, "GET", "/v1/kv/k", &[("host", "any.example")]), 421);
}

#[test]
fn a_page_of_another_origin_asks_nothing() {
    for address in [LOOPBACK, OUTSIDE] {
        let own = format!("http://{address}");
        for args in [open(), Args::default()] {
            let names = names(address, args);
            for method in ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"] {
                let from = |origin| {
                    let fields = [("host", address), ("origin", origin)];
                    status(&names, method, "/v1/kv/k", &fields)
                };
                assert_eq!(from(own.as_str()), 200);
                for bad in [
                    "http://evil.example",
                    "null",
                    "http://127.0.0.1:9090",
                    "http://localhost:8080",
                    "https://127.0.0.1",
                    "file://",
                    "",
                    "chrome-extension://127.0.0.1:8080",
                ] {
                    assert_eq!(from(bad), 403, "{method} {bad}");
                }
            }
            let two = [("host", address), ("origin", own.as_str()), ("origin", own.as_str())];
            assert_eq!(status(&names, "PUT", "/v1/kv/k", &two), 403);
        }
    }
    // The usual port goes without saying, and a proxy has a name of its own.
    let proxied = names(LOOPBACK, given(&["gateway.example:443"], Args::default()));
    let from = |origin| {
        status(&proxied, "PUT", "/v1/kv/k", &[("host", "127.0.0.1:8080"), ("origin", origin)])
    };
    assert_eq!(from("https://gateway.example"), 200);
    assert_eq!(from("http://gateway.example"), 403);
    let host = [("host", "localhost"), ("origin", "http://localhost:80")];
    assert_eq!(status(&proxied, "PUT", "/v1/kv/k", &host), 200);
}

#[test]
fn a_load_for_another_site_is_refused_whatever_it_loads() {
    let own = names(LOOPBACK, Args::default());
    let fetch = |method, target, fields: &[(&'static str, &'static str)]| {
        let host = [("host", LOOPBACK)];
        let fields: Vec<_> = host.into_iter().chain(fields.iter().copied()).collect();
        status(&own, method, target, &fields)
    };
    for site in ["cross-site", "same-site", "", "other", "same-origin, cross-site"] {
        for (mode, dest) in
            [("no-cors", "image"), ("no-cors", "script"), ("navigate", "iframe"), ("cors", "empty")]
        {
            let fields =
                [("sec-fetch-site", site), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)];
            for path in ["/", "/v1/kv/there", "/v1/kv/none", "/livez", "/metrics", "/kvs/k", "/x"] {
                assert_eq!(fetch("GET", path, &fields), 403, "{site} {mode} {path}");
            }
            assert_eq!(fetch("POST", "/v1/batch", &fields), 403);
        }
        let link = [
            ("sec-fetch-site", site),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        assert_eq!(fetch("GET", "/", &link), 200);
        // A form is a navigation too, and what it leads to can be watched by who opened it.
        for (method, path) in
            [("POST", "/"), ("POST", "/v1/batch"), ("GET", "/v1/kv/k"), ("GET", "/v1/status")]
        {
            assert_eq!(fetch(method, path, &link), 403, "{method} {path}");
        }
    }
    for site in ["same-origin", "none"] {
        assert_eq!(fetch("PUT", "/v1/kv/k", &[("sec-fetch-site", site)]), 200);
    }
    let two = [("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")];
    assert_eq!(fetch("GET", "/v1/kv/k", &two), 403);
}
