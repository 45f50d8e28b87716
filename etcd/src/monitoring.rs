//! Paths for operators: `/version`, `/health`, `/livez`, `/readyz` and `/metrics`.

use hyper::{Response, StatusCode, header};

use crate::context::Context;
use crate::etcd::Etcd;
use crate::http::Body;
use crate::json::answer::response;
use crate::limits::HEALTH_TIMEOUT;
use crate::maintenance::{CLUSTER_VERSION, VERSION};
use crate::proto::etcdserverpb::StatusRequest;

/// Answers a request for a path; `None` if there is nothing.
pub(crate) async fn at_path(etcd: &Etcd, path: &str) -> Option<Response<Body>> {
    match path {
        "/version" => {
            let text = serde_json::json!({
                "etcdserver": VERSION,
                "etcdcluster": CLUSTER_VERSION,
                "storage": CLUSTER_VERSION,
            });
            Some(response(StatusCode::OK, text.to_string().into_bytes()))
        }
        "/health" => Some(health(etcd).await),
        "/livez" => Some(text("ok\n".to_owned())),
        "/readyz" => match ready(etcd).await {
            Ok(()) => Some(text("ok\n".to_owned())),
            Err(why) => {
                let mut answer = text(format!("{why}\n"));
                *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                Some(answer)
            }
        },
        "/metrics" => Some(metrics(etcd).await),
        _ => None,
    }
}

async fn health(etcd: &Etcd) -> Response<Body> {
    let (status, health, reason) = match ready(etcd).await {
        Ok(()) => (StatusCode::OK, "true", String::new()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, "false", why),
    };
    let text = serde_json::json!({ "health": health, "reason": reason });
    response(status, text.to_string().into_bytes())
}

/// Finds out whether requests are answered: whether the keyspace can be read, and the users and
/// roles, without which each request is refused.
async fn ready(etcd: &Etcd) -> Result<(), String> {
    let asked = async {
        etcd.rules().await?;
        etcd.moment().await
    };
    match tokio::time::timeout(HEALTH_TIMEOUT, asked).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("etcdserver: request timed out".to_owned()),
    }
}

async fn metrics(etcd: &Etcd) -> Response<Body> {
    let mut exposed = String::new();
    let context = Context::default();
    let status = etcd.status(&context, StatusRequest::default());
    let status = tokio::time::timeout(HEALTH_TIMEOUT, status).await;
    let status = status.ok().and_then(Result::ok);
    let has_leader = status.as_ref().is_some_and(|status| status.leader != 0);
    let mut put = |name: &str, kind: &str, help: &str, value: f64| {
        exposed.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"));
    };
    put(
        "etcd_server_has_leader",
        "gauge",
        "Whether or not a leader exists.",
        f64::from(u8::from(has_leader)),
    );
    put(
        "etcd_server_leader_changes_seen_total",
        "counter",
        "The number of leader changes seen.",
        etcd.leader_changes() as f64,
    );
    let (shared, alone) = etcd.hubs().counts();
    let watches = [
        ("etcd_debugging_mvcc_watcher_total", "Total number of watchers.", shared + alone),
        (
            "etcd_debugging_mvcc_slow_watcher_total",
            "Total number of unsynced slow watchers.",
            alone,
        ),
        (
            "dkv_etcd_network_watches",
            "Watches of the network behind all watchers, without those of locks and elections.",
            etcd.hubs().upstream(),
        ),
    ];
    for (name, help, value) in watches {
        put(name, "gauge", help, value as f64);
    }
    if let Some(status) = status {
        let header = status.header.unwrap_or_default();
        let is_leader = header.member_id == status.leader;
        let values = [
            ("etcd_server_is_leader", "Whether or not this member is a leader.", {
                f64::from(u8::from(is_leader))
            }),
            ("etcd_mvcc_db_total_size_in_bytes", "Size of the keys and values.", {
                status.db_size as f64
            }),
            ("etcd_mvcc_db_total_size_in_use_in_bytes", "Size of the keys and values.", {
                status.db_size_in_use as f64
            }),
            ("etcd_server_quota_backend_bytes", "Quota of the keyspace, zero for none.", {
                status.db_size_quota as f64
            }),
            ("etcd_debugging_mvcc_current_revision", "The current revision.", {
                header.revision as f64
            }),
            ("etcd_server_raft_index", "Last entry of the shard's log.", status.raft_index as f64),
        ];
        for (name, help, value) in values {
            put(name, "gauge", help, value);
        }
        put(
            "etcd_server_proposals_applied_total",
            "gauge",
            "Last applied entry of the shard's log.",
            status.raft_applied_index as f64,
        );
        put(
            "etcd_server_proposals_committed_total",
            "gauge",
            "Last committed entry of the shard's log.",
            status.raft_applied_index as f64,
        );
    }
    let version = format!("server_version=\"{VERSION}\"");
    exposed.push_str("# HELP etcd_server_version Which version is running.\n");
    exposed.push_str(&format!(
        "# TYPE etcd_server_version gauge\netcd_server_version{{{version}}} 1\n"
    ));
    etcd.metrics().expose(&mut exposed);
    text(exposed)
}

fn text(text: String) -> Response<Body> {
    let mut answer = response(StatusCode::OK, text.into_bytes());
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}
