//! Allows ten events in five seconds: `cargo run -p dkv-api --example rate -- ADDRESS`.

use std::time::Duration;

use dkv_api::Client;
use dkv_api::recipes::RateCounter;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4400".to_owned());
    let client = Client::connect(address).await?;
    let rate = RateCounter::new(&client, "rate/example", Duration::from_secs(5))?;
    for _ in 0..20 {
        let count = rate.add(1).await?;
        println!("{count}: {}", if count <= 10 { "allowed" } else { "too many" });
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    client.close().await;
    Ok(())
}
