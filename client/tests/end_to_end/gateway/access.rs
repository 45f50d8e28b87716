//! Access control of a gateway: TLS and tokens.

use std::time::Duration;

use dkv_api::{Rights, Role};
use dkv_test_support::{output, within};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Gateway;
use super::http::{Http, raw};
use crate::harness::process::spawn;
use crate::harness::{Network, eventually};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_required_and_can_be_revoked() {
    let network = Network::start(1).await;
    let gateway = Gateway::start_with(&network, &["--with-authentication"]).await;
    let (http, url) = (Http::new(false), gateway.url("/v1/kv/k"));
    let refused = http.send("GET", &url, &[], "").await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (401, Some("token")));
    assert!(refused.field("www-authenticate").starts_with("Bearer"));
    assert_eq!(http.send("GET", &gateway.url("/livez"), &[], "").await.status, 200);

    let admin = ["token", "create", "--http"];
    let made = network.dkv(&admin).await;
    assert!(made.status.success(), "{}", output(&made.stderr));
    let token = format!("Bearer {}", output(&made.stdout).trim());
    let with = [("authorization", token.as_str())];
    assert_eq!(http.send("PUT", &url, &with, "v").await.status, 201);
    assert_eq!(http.send("GET", &url, &with, "").await.body, b"v");

    let client = network.admin().await;
    let (reading, holder) = client.create_bearer(Rights::Read, None).await.unwrap();
    let reading = format!("Bearer {reading}");
    let with = [("authorization", reading.as_str())];
    assert_eq!(http.send("PUT", &url, &with, "w").await.status, 403);
    assert_eq!(http.send("GET", &url, &with, "").await.body, b"v");
    let transact = async |op: &str| {
        let body = format!(r#"{{"then":[{{"op":"{op}","key":"k"}}]}}"#);
        http.send("POST", &gateway.url("/v1/txn"), &with, body).await.status
    };
    assert_eq!((transact("get").await, transact("delete").await), (200, 403));
    let increment = gateway.url("/v1/increment/k");
    assert_eq!(http.send("POST", &increment, &with, "").await.status, 403);
    client.revoke(holder).await.unwrap();
    eventually("the revoked token is still accepted", async || {
        let status = http.send("GET", &url, &with, "").await.status;
        (status == 401).then_some(()).ok_or_else(|| status.to_string())
    })
    .await;
    // Only administrators may create tokens.
    let plain = network.client_as(Role::Client, &network.path("plain")).await;
    assert!(plain.create_bearer(Rights::Write, None).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_page_gets_no_updates_once_its_token_is_revoked() {
    let network = Network::start(1).await;
    let gateway = Gateway::start_with(&network, &["--with-authentication"]).await;
    let admin = network.admin().await;
    let (token, holder) = admin.create_bearer(Rights::Read, None).await.unwrap();
    let request = format!(
        "GET /page/events HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n",
        gateway.address
    );
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut told = vec![0; 64 * 1024];
    let mut said = String::new();
    while !said.contains("data:") {
        let length = within(SOON, "an event", stream.read(&mut told)).await.unwrap();
        assert_ne!(length, 0, "{said}");
        said.push_str(&String::from_utf8_lossy(&told[..length]));
    }
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    admin.revoke(holder).await.unwrap();
    let ended = async { while stream.read(&mut told).await.is_ok_and(|length| length > 0) {} };
    within(Duration::from_secs(20), "the end of the events", ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_survives_the_loss_of_its_terminal() {
    let network = Network::start(1).await;
    let mut gateway = Gateway::start(&network).await;
    gateway.process.signal(Signal::SIGHUP);
    let http = Http::new(false);
    assert_eq!(http.send("GET", &gateway.url("/livez"), &[], "").await.status, 200);
    assert!(gateway.process.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_a_wrong_host_are_refused() {
    let network = Network::start(1).await;
    let gateway = Gateway::start(&network).await;
    for (fields, status) in [
        ("Host: evil.example", "421"),
        ("Host: localhost\r\nOrigin: http://evil.example", "403"),
        ("Host: localhost\r\nOrigin: http://localhost", "404"),
    ] {
        let request = format!("GET /v1/kv/none HTTP/1.1\r\n{fields}\r\nConnection: close\r\n\r\n");
        let said = raw(gateway.address, &[request.as_bytes()], 1).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{fields}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_machines_are_served_with_tls_and_tokens_only() {
    let network = Network::start(1).await;
    let server = network.address.to_string();
    let refused = network.dkv(&["gateway", "--http", "0.0.0.0:0"]).await;
    assert_eq!(refused.status.code(), Some(2));
    assert!(output(&refused.stderr).contains("--tls-cert"), "{}", output(&refused.stderr));
    let (certificate, key) = (network.path("tls.pem"), network.path("tls-key.pem"));
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let wrong = network.dkv(&["gateway", "--tls-cert", key, "--tls-key", key]).await;
    assert!(output(&wrong.stderr).contains("for TLS"), "{}", output(&wrong.stderr));
    let arguments =
        ["gateway", &server, "--http", "0.0.0.0:0", "--tls-cert", certificate, "--tls-key", key];
    let mut process = spawn(&arguments, &network.home(), &network.path("tls.log"));
    let address = process.ready().await.unwrap();
    let url = format!("https://localhost:{}/v1/kv/k", address.port());
    let ask = async |more: &[&str]| {
        let mut curl = tokio::process::Command::new("curl");
        curl.args([
            "-sS",
            "--cacert",
            certificate,
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{http_version}",
        ]);
        let asked = curl.args(more).arg(&url).output().await.unwrap();
        format!("{}{}", output(&asked.stdout), output(&asked.stderr))
    };
    assert_eq!(ask(&[]).await, "401 2");
    let (token, _) = network.admin().await.create_bearer(Rights::Write, None).await.unwrap();
    let field = format!("Authorization: Bearer {token}");
    assert_eq!(ask(&["-H", &field, "-T", certificate]).await, "201 2");
    assert_eq!(ask(&["-H", &field, "--http1.1"]).await, "200 1.1");
    // Peers that do not speak TLS, or are silent, block nobody.
    let plain = raw(([127, 0, 0, 1], address.port()).into(), &[b"GET / HTTP/1.1\r\n\r\n"], 1).await;
    assert!(!plain.contains("200"), "{plain}");
    assert_eq!(ask(&["-H", &field]).await, "200 2");
    assert!(process.stop().await.success());
}
