//! nginx serving a directory: Debian's package with its defaults, except for the following.
//!
//! One process per core without a master, so that all are known and end with this value. They share
//! the port.

use std::num::NonZero;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::processes::free_ports;
use super::{Driver, Leader, Processes, Purpose, Setup, System, until};

/// A running nginx.
pub(super) struct Nginx {
    processes: Processes,
    port: u16,
}

impl Nginx {
    /// Starts the server.
    pub(super) async fn start(setup: &Setup) -> Result<Self, String> {
        let [port] = free_ports()?;
        let mut nginx = Self { processes: Processes::new(setup.dir.as_deref())?, port };
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        for core in 1..=cores {
            nginx.restart(&format!("nginx-{core}"))?;
        }
        nginx.wait_whole().await?;
        Ok(nginx)
    }

    /// Returns its address.
    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn configuration(&self, own: &Path) -> String {
        let (own, port) = (own.display(), self.port);
        let files = self.processes.path("files");
        let files = files.display();
        // The user that starts it owns the directory.
        format!(
            "user root; daemon off; master_process off; worker_rlimit_nofile 16384;\n\
             pid {own}/pid; error_log stderr warn;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; client_body_temp_path {own}/bodies;\n\
             proxy_temp_path {own}/proxy; fastcgi_temp_path {own}/fastcgi;\n\
             uwsgi_temp_path {own}/uwsgi; scgi_temp_path {own}/scgi;\n\
             server {{ listen 127.0.0.1:{port} reuseport backlog=4096; keepalive_requests 1000000000;\n\
             client_max_body_size 16m;\n\
             location / {{ root {files}; dav_methods PUT; create_full_put_path on; }} }} }}\n"
        )
    }
}

impl System for Nginx {
    fn processes(&self) -> &Processes {
        &self.processes
    }

    fn processes_mut(&mut self) -> &mut Processes {
        &mut self.processes
    }

    fn drivers(
        &self,
        _clients: usize,
        _purpose: Purpose,
    ) -> BoxFuture<'_, Result<Vec<Arc<dyn Driver>>, String>> {
        Box::pin(async { Err("it is asked over HTTP".into()) })
    }

    fn leader(&self) -> BoxFuture<'_, Result<Leader, String>> {
        Box::pin(async { Ok(Leader { name: "nginx-1".into(), note: "none leads".into() }) })
    }

    fn restart(&mut self, name: &str) -> Result<(), String> {
        let own = self.processes.path(name);
        let path = own.join("nginx.conf");
        let written = std::fs::create_dir_all(&own)
            .and_then(|()| std::fs::write(&path, self.configuration(&own)));
        written.map_err(|error| error.to_string())?;
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&own).arg("-c").arg(&path);
        self.processes.start(name, &mut command)
    }

    fn wait_whole(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(until(&self.processes, || async {
            let connected = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await;
            connected.map(drop).map_err(|error| error.to_string())
        }))
    }
}
