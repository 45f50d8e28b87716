//! The interface as it describes itself, against schemathesis, which asks for all that it promises
//! and for much that it does not.

use std::path::PathBuf;
use std::time::Duration;

use dkv_test_support::output;

use super::Gateway;
use super::http::Http;
use crate::harness::Network;

/// Time that all of it may take.
const TIMEOUT: Duration = Duration::from_secs(180);

/// Where schemathesis is, if it is anywhere.
fn schemathesis() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut programs = std::env::split_paths(&path).map(|directory| directory.join("schemathesis"));
    programs.find(|program| program.is_file())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_interface_is_what_it_says() {
    let Some(schemathesis) = schemathesis() else {
        println!("SKIPPED: there is no schemathesis; pip install schemathesis");
        return;
    };
    let network = Network::start(1).await;
    let gateway = Gateway::start(&network).await;
    let url = gateway.url("/openapi.json");
    let described = Http::new(false).send("GET", &url, &[], "").await.json();
    assert_eq!(described["openapi"], "3.1.0");
    // That a condition does not hold is no fault of the request, and a key may be longer than any
    // is; a revision that no shard has reached would be waited for until the request's time is
    // over. That an eventual write takes no condition cannot be said in a schema.
    let config = network.path("schemathesis.toml");
    let accepted = "[parameters]\n\"query.at_least\" = 0\n[checks]\n\
                    positive_data_acceptance.expected-statuses = \
                    [\"2xx\", 304, 404, 409, 412, 414]\n\
                    [[operations]]\ninclude-operation-id = [\"put\", \"delete\"]\n[operations.checks]\n\
                    positive_data_acceptance.expected-statuses = \
                    [\"2xx\", 304, 400, 404, 409, 412, 414]\n";
    std::fs::write(&config, accepted).unwrap();
    // In one phase it makes up entity tags that are none, and calls them good.
    for more in [
        ["--phases", "examples,coverage", "--exclude-checks", "positive_data_acceptance"],
        ["--phases", "fuzzing", "--checks", "all"],
    ] {
        let mut command = tokio::process::Command::new(&schemathesis);
        // A few examples of each, and the same ones each time.
        command.current_dir(network.path(""));
        command.args(["--config-file", config.to_str().unwrap(), "run", &url]).args(more);
        // One thread: CPython counts how deep its parser is for all threads together, and gives up.
        command.args(["--max-examples", "15", "--seed", "6", "--workers", "1", "--no-color"]);
        command.args(["--suppress-health-check", "all"]);
        let ended = tokio::time::timeout(TIMEOUT, command.kill_on_drop(true).output()).await;
        let ended = ended.expect("schemathesis does not end").unwrap();
        assert!(ended.status.success(), "{}{}", output(&ended.stdout), output(&ended.stderr));
    }
}
