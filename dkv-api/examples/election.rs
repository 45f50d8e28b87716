//! Stands in an election, and follows it: `cargo run -p dkv-api --example election -- ADDRESS
//! NAME`.

use std::time::Duration;

use dkv_api::Client;
use dkv_api::recipes::{Elections, Leadership};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4400".to_owned());
    let name = std::env::args().nth(2).unwrap_or_else(|| std::process::id().to_string());
    let client = Client::connect(address).await?;
    let mut elections = Elections::new(&client, "election/example").await?;
    tokio::spawn(async move {
        while let Ok(leader) = elections.next().await {
            match leader {
                Some(leader) => println!("{:?} leads in term {}", leader.value, leader.term),
                None => println!("no candidate leads"),
            }
        }
    });
    loop {
        let ttl = Duration::from_secs(5);
        let leads = Leadership::campaign(&client, "election/example", name.clone(), ttl).await?;
        println!("elected in term {}", leads.term());
        println!("no longer the leader: {}", leads.lost().await);
    }
}
