//! What the tests of every face's listener share: the requests that pages of other sites make
//! browsers send.
#![allow(clippy::unwrap_used, reason = "only tests use this module")]

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Time that an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Checks that a listener on loopback refuses requests of pages of other sites for a path.
///
/// # Panics
/// It does not, or allows such a page to read the answer.
pub async fn refuses_pages_of_other_sites(address: SocketAddr, path: &str) {
    let image = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n";
    for (method, fields, status) in [
        // DNS rebinding.
        ("PUT", "Host: evil.example\r\n".to_owned(), 421),
        ("GET", format!("Host: evil.example:{}\r\n", address.port()), 421),
        // A form, a script, a preflight, and an image of another page.
        ("POST", format!("Host: {address}\r\nOrigin: http://evil.example\r\n"), 403),
        ("PUT", format!("Host: {address}\r\nOrigin: null\r\n"), 403),
        ("OPTIONS", format!("Host: {address}\r\nOrigin: http://localhost:3000\r\n"), 403),
        ("GET", format!("Host: {address}\r\n{image}"), 403),
        ("GET", String::new(), 400),
        // One that calls itself a client of gRPC, which may speak HTTP/1.1 too.
        ("POST", "Host: evil.example\r\nContent-Type: application/grpc\r\n".to_owned(), 421),
    ] {
        let fields = format!("{fields}Content-Length: 0\r\n");
        let said = answer(address, method, path, &fields).await;
        let request = format!("{method} {path} {fields:?}");
        assert!(said.starts_with(&format!("http/1.1 {status} ")), "{request} {said}");
        assert!(!said.contains("access-control-"), "{request} {said}");
    }
}

/// Checks that a listener on loopback serves a program, with the fields that instruct browsers in
/// its answer.
///
/// # Panics
/// It does not, or a field is missing.
pub async fn serves_programs(address: SocketAddr, path: &str) {
    let said = answer(address, "GET", path, &format!("Host: {address}\r\n")).await;
    for part in [
        "http/1.1 200 ",
        "\r\ncross-origin-resource-policy: same-origin\r\n",
        "\r\nx-content-type-options: nosniff\r\n",
        "\r\ncontent-security-policy: default-src 'none'; frame-ancestors 'none'; sandbox\r\n",
        "\r\nx-frame-options: deny\r\n",
    ] {
        assert!(said.contains(part), "{part} {said}");
    }
}

/// Sends a request over its own connection, and returns the whole answer in lower case.
async fn answer(address: SocketAddr, method: &str, path: &str, fields: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    let reading = stream.read_to_end(&mut said);
    tokio::time::timeout(PATIENCE, reading).await.unwrap().unwrap();
    String::from_utf8_lossy(&said).to_lowercase()
}
