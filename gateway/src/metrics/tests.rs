//! Kinds of requests, and their counters.

use super::*;

#[test]
fn requests_have_kinds() {
    let name = |method: Method, path: &str| KINDS[kind(&method, path)];
    assert_eq!(name(Method::GET, "/v1/kv/a"), "get");
    assert_eq!(name(Method::HEAD, "/v1/kv/a"), "get");
    assert_eq!(name(Method::PUT, "/v1/kv/a"), "put");
    assert_eq!(name(Method::GET, "/v1/kv"), "list");
    assert_eq!(name(Method::PUT, "/kvs/a"), "kvs");
    assert_eq!(name(Method::GET, "/nothing"), "other");
}

#[test]
fn counts_are_exposed() {
    let metrics = Metrics::default();
    metrics.count_kind(0, StatusCode::OK, Instant::now());
    metrics.count_kind(0, StatusCode::from_u16(999).unwrap(), Instant::now());
    metrics.accepted();
    metrics.received(7);
    let mut text = Exposition::default();
    metrics.expose(&mut text);
    metrics.count_write(Instant::now());
    let traffic = metrics.key_traffic();
    assert_eq!((traffic.buckets.iter().sum::<u64>(), traffic.failed), (2, 1));
    assert!(traffic.slowest_write_us.is_some());
    assert_eq!(metrics.key_traffic().slowest_write_us, None);
    let text = text.finish();
    for line in [
        "dkv_http_requests_total{kind=\"get\",status=\"200\"} 1",
        "dkv_http_request_duration_seconds_count{kind=\"get\"} 2",
        "dkv_http_connections 1",
        "dkv_http_received_bytes_total 7",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is missing in {text}");
    }
}
