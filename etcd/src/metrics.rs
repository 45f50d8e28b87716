//! Counters of calls, under the names that dashboards of etcd look for.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Code;
use crate::method::Method;

/// The counters of a face.
pub(crate) struct Metrics {
    calls: Vec<Calls>,
}

/// The counters of a method.
#[derive(Default)]
struct Calls {
    started: AtomicU64,
    handled: [AtomicU64; Code::ALL.len()],
    received: AtomicU64,
    sent: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { calls: Method::ALL.iter().map(|_| Calls::default()).collect() }
    }
}

impl Metrics {
    /// Counts a call that begins.
    pub(crate) fn started(&self, method: Method) {
        self.add(method, |calls| &calls.started);
    }

    /// Counts a call that has ended.
    pub(crate) fn handled(&self, method: Method, code: Code) {
        self.add(method, |calls| &calls.handled[code as usize]);
    }

    /// Counts a message of a caller.
    pub(crate) fn received(&self, method: Method) {
        self.add(method, |calls| &calls.received);
    }

    /// Counts a message to a caller.
    pub(crate) fn sent(&self, method: Method) {
        self.add(method, |calls| &calls.sent);
    }

    fn add(&self, method: Method, counter: impl Fn(&Calls) -> &AtomicU64) {
        if let Some(calls) = self.calls.get(method as usize) {
            counter(calls).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes the counters in the text format of Prometheus.
    pub(crate) fn expose(&self, text: &mut String) {
        type Total = fn(&Calls) -> u64;
        let totals: [(&str, &str, Total); 3] = [
            ("started", "RPCs started on the server.", |calls| load(&calls.started)),
            ("msg_received", "Stream messages received on the server.", |c| load(&c.received)),
            ("msg_sent", "Stream messages sent by the server.", |calls| load(&calls.sent)),
        ];
        for (name, help, total) in totals {
            let name = format!("grpc_server_{name}_total");
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} counter\n"));
            for (method, calls) in Method::ALL.iter().zip(&self.calls) {
                text.push_str(&format!("{name}{{{}}} {}\n", labels(*method), total(calls)));
            }
        }
        let name = "grpc_server_handled_total";
        text.push_str(&format!("# HELP {name} RPCs completed on the server, by code.\n"));
        text.push_str(&format!("# TYPE {name} counter\n"));
        for (method, calls) in Method::ALL.iter().zip(&self.calls) {
            for (code, count) in Code::ALL.iter().zip(&calls.handled) {
                let count = load(count);
                // A series for every code of every method would be a thousand zeros.
                if count > 0 || *code == Code::Ok {
                    let (labels, code) = (labels(*method), code.name());
                    text.push_str(&format!("{name}{{grpc_code=\"{code}\",{labels}}} {count}\n"));
                }
            }
        }
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn labels(method: Method) -> String {
    let (service, name, kind) = (method.service(), method.name(), method.kind().name());
    format!("grpc_method=\"{name}\",grpc_service=\"{service}\",grpc_type=\"{kind}\"")
}
