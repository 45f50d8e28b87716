//! Backups in a bucket, of a local server from PyPI: `pip install 'moto[server]'`.

use std::process::{Child, Stdio};

use dkv_test_support::{eventually, output, skip, text};
use serde_json::{Value, json};

use crate::harness::{Network, network::free_port, process};

/// A local server that speaks S3.
struct Server {
    process: Child,
    endpoint: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// Starts `moto_server`; `None` if there is none in the path.
    async fn start() -> Option<Self> {
        let port = free_port();
        let process = std::process::Command::new("moto_server")
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let server = Self { process, endpoint: format!("http://127.0.0.1:{port}") };
        eventually("the server does not listen", async || {
            let connected = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
            connected.map(drop).map_err(|error| error.to_string())
        })
        .await;
        Some(server)
    }

    /// Runs `dkv` with the variables that name this server.
    async fn dkv(&self, network: &Network, arguments: &[&str], status: i32) -> String {
        let address = network.address.to_string();
        let arguments = [&[address.as_str()], arguments].concat();
        let mut command =
            tokio::process::Command::from(process::command(&arguments, &network.home()));
        command
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_REGION", "us-east-1")
            .stdin(Stdio::null());
        let ran = command.output().await.unwrap();
        let said = output(&ran.stderr);
        assert_eq!(ran.status.code(), Some(status), "{arguments:?}: {said}");
        if status == 0 { output(&ran.stdout).to_owned() } else { said.to_owned() }
    }

    /// Creates a bucket.
    async fn bucket(&self, name: &str) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let address = self.endpoint.trim_start_matches("http://");
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let asked = format!(
            "PUT /{name} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, \
             SignedHeaders=host, Signature=0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(asked.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes moto_server in the path: pip install 'moto[server]'"]
async fn a_bucket_is_a_destination() {
    let Some(server) = Server::start().await else {
        skip("a_bucket_is_a_destination", "there is no moto_server in the path");
        return;
    };
    server.bucket("backups").await;
    let network = Network::with(json!({ "shards": 2 }), 1).await;
    let file = network.path("keys.csv");
    let lines: String = (0..500).map(|number| format!("key/{number:04},{number}\n")).collect();
    std::fs::write(&file, lines).unwrap();
    server.dkv(&network, &["load", text(&file)], 0).await;
    let dest = "s3://backups/some/place";
    let nothing = server.dkv(&network, &["backup", "list", dest], 0).await;
    assert!(nothing.contains("there are no backups"), "{nothing}");
    server.dkv(&network, &["backup", "create", dest], 0).await;
    server.dkv(&network, &["put", "color", "blue"], 0).await;
    let after = ["backup", "create", dest, "--since", "latest", "--json"];
    let created: Value = serde_json::from_str(&server.dkv(&network, &after, 0).await).unwrap();
    assert_eq!(created["kind"], "increment");
    server.dkv(&network, &["backup", "verify", dest], 0).await;
    let restored = server.dkv(&network, &["restore", dest, "--as", "copy"], 0).await;
    assert!(restored.contains("501 keys"), "{restored}");
    let pruned = server.dkv(&network, &["backup", "prune", dest, "--keep", "1h"], 0).await;
    assert!(pruned.contains("removed 0 backups"), "{pruned}");
    let missing = server.dkv(&network, &["backup", "create", "s3://nowhere/x"], 1).await;
    assert!(missing.contains("s3://nowhere/x"), "{missing}");
}
