//! System programs that inject faults, and whether they are installed.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use dkv_test_support::skip;

/// Paths at which libfaketime may be installed.
const FAKETIME: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
];

/// Runs a system program.
///
/// # Panics
/// With its output, if it fails.
pub(crate) fn run(program: &str, arguments: &[&str]) {
    if let Err(problem) = attempt(program, arguments) {
        panic!("{program} {}: {problem}", arguments.join(" "));
    }
}

/// Runs a system program. Returns its output, or its error output if it fails.
pub(crate) fn attempt(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().map_err(|it| it.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

/// Returns whether a test can run here. If not, says why.
pub(crate) fn has(test: &str, needed: &[&str]) -> bool {
    let missing = needed.iter().find_map(|tool| lacks(tool));
    if let Some(missing) = &missing {
        skip(test, missing);
    }
    missing.is_none()
}

fn lacks(tool: &str) -> Option<String> {
    let found = |program: &str, argument: &str| attempt(program, &[argument]).map(drop);
    match tool {
        "namespaces" if !nix::unistd::geteuid().is_root() => {
            Some("network namespaces need root".to_owned())
        }
        "namespaces" => {
            static MADE: OnceLock<Result<(), String>> = OnceLock::new();
            let made = MADE.get_or_init(|| {
                let name = format!("dkv{}xprobe", std::process::id());
                let made = attempt("ip", &["netns", "add", &name]).map(drop);
                let _ = attempt("ip", &["netns", "del", &name]);
                made
            });
            made.clone().err().map(|why| format!("no network namespace can be made: {why}"))
        }
        "iptables" => {
            found("iptables", "--version").err().map(|_| "iptables is missing".to_owned())
        }
        "strace" => found("strace", "-V").err().map(|_| "strace is missing".to_owned()),
        "faketime" => faketime().is_none().then(|| "libfaketime is missing".to_owned()),
        "tmpfs" => None,
        other => unreachable!("{other}"),
    }
}

/// Returns the path of libfaketime, if it is installed.
pub(crate) fn faketime() -> Option<&'static str> {
    FAKETIME.into_iter().find(|path| Path::new(path).exists())
}
