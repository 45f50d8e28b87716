//! The OpenAPI description, tested by schemathesis with requests that it allows and many that it
//! does not.

use std::path::PathBuf;
use std::time::Duration;

use dkv_test_support::{output, skip};

use super::Gateway;
use super::http::Http;
use crate::harness::Network;

/// Time limit for the whole run.
const TIMEOUT: Duration = Duration::from_secs(180);

/// Returns the path of schemathesis, if it is installed.
fn schemathesis() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut programs = std::env::split_paths(&path).map(|directory| directory.join("schemathesis"));
    programs.find(|program| program.is_file())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_interface_matches_its_description() {
    let Some(schemathesis) = schemathesis() else {
        let why = "schemathesis is not installed; pip install schemathesis";
        skip("the_interface_matches_its_description", why);
        return;
    };
    let network = Network::start(1).await;
    let gateway = Gateway::start(&network).await;
    let url = gateway.url("/openapi.json");
    let described = Http::new(false).send("GET", &url, &[], "").await.json();
    assert_eq!(described["openapi"], "3.1.0");
    // A valid request may fail by its precondition, or by a key that is too long. A revision that
    // no shard has reached would make it wait until its deadline. A schema cannot express that
    // eventual writes take no condition, that a read at a revision takes no other bound, which
    // revisions there are, or that a transaction writes no key twice and is in one shard.
    let config = network.path("schemathesis.toml");
    let accepted = "[parameters]\n\"query.at_least\" = 0\n[checks]\n\
                    positive_data_acceptance.expected-statuses = \
                    [\"2xx\", 304, 404, 409, 412, 414]\n\
                    [[operations]]\ninclude-operation-id = [\"put\", \"delete\"]\n[operations.checks]\n\
                    positive_data_acceptance.expected-statuses = \
                    [\"2xx\", 304, 400, 404, 409, 412, 414]\n\
                    [[operations]]\ninclude-operation-id = [\"get\", \"head\", \"list\", \"history\"]\n\
                    [operations.checks]\npositive_data_acceptance.expected-statuses = \
                    [\"2xx\", 304, 400, 404, 410, 412, 414]\n\
                    [[operations]]\ninclude-operation-id = [\"txn\"]\n[operations.checks]\n\
                    positive_data_acceptance.expected-statuses = [\"2xx\", 400, 404, 409, 413]\n";
    std::fs::write(&config, accepted).unwrap();
    // One phase generates malformed entity tags as valid data.
    for more in [
        ["--phases", "examples,coverage", "--exclude-checks", "positive_data_acceptance"],
        ["--phases", "fuzzing", "--checks", "all"],
    ] {
        let mut command = tokio::process::Command::new(&schemathesis);
        // A few examples of each, always the same ones.
        command.current_dir(network.path(""));
        command.args(["--config-file", config.to_str().unwrap(), "run", &url]).args(more);
        // One thread, because the recursion limit of the CPython parser counts all threads
        // together.
        command.args(["--max-examples", "15", "--seed", "6", "--workers", "1", "--no-color"]);
        // A watch goes on until its reader leaves.
        command.args(["--exclude-path", "/v1/watch"]);
        command.args(["--suppress-health-check", "all"]);
        let ended = tokio::time::timeout(TIMEOUT, command.kill_on_drop(true).output()).await;
        let ended = ended.expect("schemathesis does not end").unwrap();
        assert!(ended.status.success(), "{}{}", output(&ended.stdout), output(&ended.stderr));
    }
}
