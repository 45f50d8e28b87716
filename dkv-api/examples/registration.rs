//! Registers an instance of a service, and lists all: `cargo run -p dkv-api --example registration
//! -- ADDRESS NAME`.

use std::time::Duration;

use dkv_api::Client;
use dkv_api::recipes::{Registration, instances};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4400".to_owned());
    let name = std::env::args().nth(2).unwrap_or_else(|| std::process::id().to_string());
    let client = Client::connect(address).await?;
    loop {
        let ttl = Duration::from_secs(5);
        let here = Registration::new(&client, "service/example", &name, "here", ttl).await?;
        while !here.is_lost() {
            for instance in instances(&client, "service/example").await? {
                println!("{:?}: {:?}", instance.name, instance.value);
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        println!("registering again: {}", here.lost().await);
    }
}
