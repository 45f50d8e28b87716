//! How addresses of servers are read.

use super::*;

async fn resolved(address: &str) -> String {
    match resolve(address).await {
        Ok(found) => found.to_string(),
        Err(error) => format!("error: {error}"),
    }
}

#[tokio::test]
async fn an_address_may_be_an_ip_with_or_without_a_port() {
    for (address, expected) in [
        ("192.0.2.1", "192.0.2.1:4400"),
        ("192.0.2.1:1", "192.0.2.1:1"),
        ("[2001:db8::1]", "[2001:db8::1]:4400"),
        ("[2001:db8::1]:1", "[2001:db8::1]:1"),
        ("2001:db8::1", "[2001:db8::1]:4400"),
        ("::1", "[::1]:4400"),
        ("[::1]", "[::1]:4400"),
        ("[::1]:65535", "[::1]:65535"),
        ("::ffff:192.0.2.1", "[::ffff:192.0.2.1]:4400"),
    ] {
        assert_eq!(resolved(address).await, expected, "{address}");
    }
}

#[tokio::test]
async fn a_name_is_looked_up() {
    let local = resolve("localhost").await.unwrap();
    assert!(local.ip().is_loopback());
    assert_eq!(local.port(), DEFAULT_SERVER_PORT);
    assert_eq!(resolve("localhost:77").await.unwrap().port(), 77);
}

#[tokio::test]
async fn what_cannot_be_resolved_is_named_as_it_was_given() {
    for address in ["", ":", ":4400", "192.0.2.1:65536", "localhost:", "localhost:x", "[::1", "a b"]
    {
        let error = resolve(address).await.unwrap_err();
        assert_eq!(error.address, address);
    }
}

#[test]
fn a_port_is_told_from_the_end_of_an_ipv6_address() {
    for with_port in ["name:1", "192.0.2.1:65535", "[::1]:1", "[2001:db8::1]:4400"] {
        assert!(has_port(with_port), "{with_port}");
    }
    for without in ["name", "192.0.2.1", "::1", "2001:db8::4400", "[::1]", "name:", "name:65536"] {
        assert!(!has_port(without), "{without}");
    }
}

#[tokio::test]
async fn a_list_has_each_address_once_and_leaves_out_what_is_unknown() {
    let one: SocketAddr = "192.0.2.1:4400".parse().unwrap();
    let two: SocketAddr = "192.0.2.2:1".parse().unwrap();
    assert_eq!(resolve_list("192.0.2.1").await, Ok(vec![one]));
    let several = "192.0.2.1, 192.0.2.2:1,192.0.2.1:4400,192.0.2.1:x";
    assert_eq!(resolve_list(several).await, Ok(vec![one, two]));
    assert_eq!(resolve_list("192.0.2.1:x,").await.unwrap_err().address, "192.0.2.1:x");
    assert_eq!(resolve_list("").await.unwrap_err().address, "");
}
