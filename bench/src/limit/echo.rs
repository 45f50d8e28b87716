//! A QUIC connection whose other end sends back what it receives.

use std::collections::VecDeque;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, ServerConfig, TransportConfig, VarInt};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;

use crate::generator::Tally;
use crate::process_stats;
use crate::systems::Answer;

/// Flow-control windows of the connection, large enough never to be the limit.
const WINDOW_BYTES: u32 = 32 * 1024 * 1024;
/// Time to warm up, which does not count.
const WARM_UP: Duration = Duration::from_millis(500);

/// The figures of one echo.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Echo {
    /// Requests under way at any time.
    pub(super) under_way: usize,
    /// Echoes per second.
    pub(super) ops: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// CPU time of both ends per echo, in microseconds.
    cpu_us: f64,
}

impl fmt::Display for Echo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { under_way, ops, p50_ms, p99_ms, cpu_us } = self;
        write!(f, "{under_way:>9} {ops:>11.0} {p50_ms:>8.3} {p99_ms:>8.3} {cpu_us:>10.2}")
    }
}

/// Keeps `under_way` requests of `bytes` bytes under way on one stream for `time`.
pub(super) async fn measure(
    under_way: usize,
    bytes: usize,
    time: Duration,
) -> Result<Echo, String> {
    let (server, client) = endpoints().map_err(|error| error.to_string())?;
    let address = server.local_addr().map_err(|error| error.to_string())?;
    // Aborted when dropped, which ends the other end as well.
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        while let Some(incoming) = server.accept().await {
            let Ok(connection) = incoming.await else { return };
            let _ = send_back(&connection).await;
        }
    });
    let connecting = client.connect(address, "localhost").map_err(|error| error.to_string())?;
    let connection = connecting.await.map_err(|error| error.to_string())?;
    drive(&connection, under_way.max(1), bytes.max(1), time)
        .await
        .map_err(|error| error.to_string())
}

async fn send_back(
    connection: &Connection,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, mut receiver) = connection.accept_bi().await?;
    while let Some(chunk) = receiver.read_chunk(usize::MAX, true).await? {
        sender.write_chunk(chunk.bytes).await?;
    }
    Ok(())
}

/// Sends a new request for each that came back; those that arrive together are answered together.
async fn drive(
    connection: &Connection,
    under_way: usize,
    bytes: usize,
    time: Duration,
) -> Result<Echo, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, mut receiver) = connection.open_bi().await?;
    let requests = bytes::Bytes::from(vec![7; under_way * bytes]);
    let mut sent = VecDeque::from([(Instant::now(), under_way)]);
    sender.write_chunk(requests.clone()).await?;
    let mut tally = Tally::default();
    let begin = Instant::now() + WARM_UP;
    let end = begin + time;
    let mut cpu = None;
    let mut received = 0;
    loop {
        let chunk =
            receiver.read_chunk(usize::MAX, true).await?.ok_or("the other end has ended")?;
        let now = Instant::now();
        if now >= end {
            break;
        }
        if now >= begin && cpu.is_none() {
            cpu = Some(process_stats::own_cpu());
        }
        received += chunk.bytes.len();
        let whole = received / bytes;
        received %= bytes;
        let mut left = whole;
        while let Some((begun, count)) = sent.front_mut().filter(|_| left > 0) {
            let answered = left.min(*count);
            for _ in 0..answered {
                if cpu.is_some() {
                    tally.record(now - *begun, Ok(Answer::Done));
                }
            }
            left -= answered;
            *count -= answered;
            if *count == 0 {
                sent.pop_front();
            }
        }
        if whole > 0 {
            sent.push_back((Instant::now(), whole));
            sender.write_chunk(requests.slice(..whole * bytes)).await?;
        }
    }
    let cpu = process_stats::own_cpu().saturating_sub(cpu.unwrap_or_default());
    Ok(Echo {
        under_way,
        ops: tally.answered() as f64 / time.as_secs_f64(),
        p50_ms: tally.latency_ms(0.5),
        p99_ms: tally.latency_ms(0.99),
        cpu_us: cpu.as_secs_f64() * 1e6 / tally.answered().max(1) as f64,
    })
}

/// Returns two endpoints that trust each other's certificate.
fn endpoints() -> Result<(Endpoint, Endpoint), Box<dyn std::error::Error + Send + Sync>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let certificate: CertificateDer<'static> = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server_tls = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate)?;
    let client_tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(WINDOW_BYTES));
    transport.receive_window(VarInt::from_u32(WINDOW_BYTES));
    transport.send_window(u64::from(WINDOW_BYTES));
    let transport = Arc::new(transport);
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server_tls)?));
    server.transport_config(Arc::clone(&transport));
    let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client_tls)?));
    client.transport_config(transport);
    let server = Endpoint::server(server, loopback)?;
    let mut dialler = Endpoint::client(loopback)?;
    dialler.set_default_client_config(client);
    Ok((server, dialler))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_sent_comes_back() {
        let echo = measure(8, 100, Duration::from_millis(200)).await.unwrap();
        assert!(echo.ops > 10.0, "{echo}");
        assert!(echo.p99_ms >= echo.p50_ms);
    }
}
