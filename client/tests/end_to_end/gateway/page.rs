//! The page at `/`, in a browser.

use dkv_test_support::skip;

use super::Gateway;
use super::browser::Browser;
use crate::harness::{Load, Network};

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_versions_and_follows_changes() {
    let network = Network::with(serde_json::json!({ "shards": 1 }), 3).await;
    let mut gateway = Gateway::start(&network).await;
    let client = network.client().await;
    for value in ["red", "green", "dark <b>blue</b>"] {
        client.write("color", value).await.unwrap();
    }
    client.delete("color").await.unwrap();
    let latest = client.write("color", "violet").await.unwrap().receipt.revision;
    client.write("user/1", "Ada").await.unwrap();
    let url = gateway.url("/#keys");
    let Some(mut browser) = Browser::open(&network.path(""), &url).await else {
        skip("the_page_shows_versions_and_follows_changes", "there is no Chromium");
        return;
    };
    let press = |text: &str| {
        format!(
            "[...document.querySelectorAll('#found button')].find(it => it.textContent === '{text}').click()"
        )
    };
    browser.until("document.querySelectorAll('#found button').length === 2").await;
    browser.evaluate(&press("color")).await;
    browser.until("document.querySelectorAll('#version-rows tr').length === 5").await;
    let rows = "[...document.querySelectorAll('#version-rows .value')].map(it => it.textContent)";
    let rows = browser.evaluate(rows).await;
    let values = ["violet", "deleted", "dark <b>blue</b>", "green", "red"];
    assert_eq!(rows, serde_json::json!(values));
    browser.picture("versions", 1200, 1200, false).await;

    // The value at a revision is shown; a put of it replaces only the value that was the latest.
    browser.evaluate("document.querySelectorAll('#version-rows button')[3].click()").await;
    browser
        .until(
            "at('value').value === 'green' && at('said').textContent.startsWith('As of revision ')",
        )
        .await;
    browser.evaluate("at('read-at').value = '999999'; at('show-at').click()").await;
    browser.until("at('said').textContent.includes('does not exist yet')").await;
    assert_eq!(browser.evaluate("at('said').className").await, "bad");
    let list_at = format!("at('list-at').value = '{latest}'; at('find').requestSubmit()");
    browser.evaluate(&list_at).await;
    browser.until("document.querySelectorAll('#found button').length === 1").await;
    browser.until("at('listed').textContent.startsWith('As of revision ')").await;
    browser.evaluate("at('list-at').value = ''; at('find').requestSubmit()").await;
    browser.until("document.querySelectorAll('#found button').length === 2").await;

    // Changes are shown as they happen: in the list, in the editor and among the versions.
    browser.evaluate("at('get').click()").await;
    browser.until("at('value').value === 'violet'").await;
    browser.evaluate("at('follow').click()").await;
    browser.until("at('following').textContent.startsWith('live, at ')").await;
    client.write("color", "orange").await.unwrap();
    client.write("user/0", "Grace").await.unwrap();
    client.delete("user/1").await.unwrap();
    browser.until("document.querySelectorAll('#changed li').length === 3").await;
    let found = "[...document.querySelectorAll('#found button')].map(it => it.textContent).join()";
    browser.until(&format!("{found} === 'color,user/0'")).await;
    browser.until("at('value').value === 'orange'").await;
    assert_eq!(browser.evaluate("document.querySelectorAll('#version-rows tr').length").await, 6);
    // Text that was typed stays.
    browser.evaluate("at('value').value = 'mine'").await;
    client.write("color", "pink").await.unwrap();
    browser.until("at('said').textContent.startsWith('The key was changed at revision ')").await;
    assert_eq!(browser.evaluate("at('value').value").await, "mine");
    for (picture, width, height, dark) in
        [("follow", 1200, 1400, true), ("follow-phone", 390, 2300, false)]
    {
        browser.picture(picture, width, height, dark).await;
    }

    // A gateway that comes back is asked for what was missed, once.
    let address = gateway.address.to_string();
    assert!(gateway.process.stop().await.success());
    browser.until("at('following').textContent.includes('; resuming after ')").await;
    client.write("missed", "1").await.unwrap();
    client.write("missed", "2").await.unwrap();
    let _gateway = Gateway::start_at(&network, &address, &[]).await;
    browser.until("document.querySelectorAll('#changed li').length === 6").await;
    browser.until("at('following').textContent.startsWith('live, at ')").await;
    let first = "document.querySelector('#changed li').textContent";
    let first = browser.evaluate(first).await;
    assert!(first.as_str().unwrap().contains("missed2"), "{first}");
    browser
        .until("document.querySelector('#found button[aria-current=true]').textContent === 'color'")
        .await;
    browser.evaluate("at('follow').click()").await;
    assert_eq!(browser.evaluate("at('changes').hidden").await, true);
    // The browser itself reports requests that fail, and nothing else went wrong.
    let unexpected = |it: &&String| !it.contains("Failed to load resource");
    let complaints: Vec<&String> = browser.complaints().iter().filter(unexpected).collect();
    assert_eq!(complaints, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_a_failover_and_writes_a_key() {
    let mut network = Network::alone(serde_json::json!({}), 3).await;
    let gateway = Gateway::start(&network).await;
    let url = gateway.url("/");
    let Some(mut browser) = Browser::open(&network.path(""), &url).await else {
        skip("the_page_shows_a_failover_and_writes_a_key", "there is no Chromium");
        return;
    };
    browser.until("document.getElementById('state')?.textContent === 'available'").await;
    browser.until("document.querySelectorAll('#nodes > li').length === 3").await;
    assert_eq!(browser.evaluate("document.querySelectorAll('#shards > li').length").await, 4);

    // A key is written and read back.
    let fill =
        "at('key').value = 'color'; at('value').value = 'dark <b>blue</b>'; at('put').click()";
    browser.evaluate(fill).await;
    browser.until("at('said').textContent.startsWith('Written at revision ')").await;
    let client = network.client().await;
    assert_eq!(client.read("color").await.unwrap().value, "dark <b>blue</b>");
    browser.until("document.querySelector('#found button')?.textContent === 'color'").await;
    client.write("color", "green").await.unwrap();
    // A value that was changed in the meantime is not overwritten.
    browser.evaluate("at('value').value = 'red'; at('put').click()").await;
    browser.until("at('said').textContent.startsWith('The key was changed')").await;
    browser.evaluate("document.querySelector('#found button').click()").await;
    browser.until("at('value').value === 'green'").await;

    // A key or value that a field would alter is shown, but cannot be edited.
    client.write("line\nbreak", "one\r\ntwo").await.unwrap();
    browser.evaluate("document.querySelector('#find button').click()").await;
    let found = r"[...document.querySelectorAll('#found button')].find(it => it.textContent === 'line\\x0abreak')";
    browser.until(&format!("{found} !== undefined")).await;
    browser.evaluate(&format!("{found}.click()")).await;
    browser.until(r"at('value').value === 'one\\x0d\\x0atwo' && at('put').disabled").await;
    browser.evaluate("document.getElementById('delete').click()").await;
    browser.evaluate("document.querySelector('#sure button[value=yes]').click()").await;
    browser.until("at('said').textContent === 'Deleted.'").await;
    assert!(client.read("line\nbreak").await.is_err());
    browser.evaluate("document.getElementById('new').click()").await;

    // The coordinator is killed and replaced; the page does not reload.
    browser.evaluate("window.since = 'before'").await;
    let load = Load::start(&client);
    load.more(300).await;
    browser.until("document.querySelectorAll('.scale span').length >= 6").await;
    let coordinator = network.coordinator().await;
    let name = format!("node-{}", coordinator + 1);
    network.kill_node(coordinator);
    browser.until("document.querySelectorAll('#nodes > li.gone').length === 1").await;
    browser.until("document.querySelectorAll('#nodes > li.leads').length === 1").await;
    browser.until("at('events').textContent.includes('was elected coordinator')").await;
    browser.until("at('events').textContent.includes('does not answer')").await;
    assert_eq!(browser.evaluate("window.since").await, "before", "{name}");
    for (picture, width, height, dark) in [
        ("light", 1200, 1700, false),
        ("dark", 1200, 1700, true),
        ("phone", 390, 3000, false),
        ("phone-dark", 390, 3000, true),
    ] {
        browser.picture(picture, width, height, dark).await;
    }
    let report = load.stop().await;
    assert_eq!(report.failures, [""; 0]);
    network.start_node(coordinator).await;
    browser.until("document.querySelectorAll('#nodes > li.gone').length === 0").await;
    browser.until("at('events').textContent.includes('answers again')").await;

    // The page loads nothing from elsewhere, and every field has an accessible name.
    let from =
        "performance.getEntriesByType('resource').every(it => it.name.startsWith(location.origin))";
    assert_eq!(browser.evaluate(from).await, true);
    let nameless = "[...document.querySelectorAll('input, textarea, button')]
        .filter(it => !(it.labels?.length || it.textContent.trim() || it.ariaLabel)).length";
    assert_eq!(browser.evaluate(nameless).await, 0);
    browser.evaluate("document.querySelector('#found button').click()").await;
    browser.until("at('key').value.length > 0 && at('value').value.length > 0").await;
    let deleted = browser.evaluate("at('key').value").await;
    browser.evaluate("document.getElementById('delete').click()").await;
    browser.evaluate("document.querySelector('#sure button[value=yes]').click()").await;
    browser.until("at('said').textContent === 'Deleted.'").await;
    assert!(client.read(deleted.as_str().unwrap()).await.is_err());
    // Browsers themselves log a failed precondition.
    let unexpected = |browser: &Browser| {
        let complaints = browser.complaints().iter();
        complaints.filter(|it| !it.contains("status of 412")).cloned().collect::<Vec<_>>()
    };
    assert_eq!(unexpected(&browser), [""; 0]);
    // Other complaints would be noticed.
    browser.evaluate("fetch('/nothing').then(it => console.warn(it.status))").await;
    assert_eq!(unexpected(&browser).len(), 2, "{:?}", browser.complaints());
}
