use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::token::Fingerprint;

const PORT: u16 = 4400;

/// An address of this machine, and one that is reserved for documentation (RFC 5737).
const HERE: ([u8; 4], u16) = ([127, 0, 0, 1], PORT);
const ELSEWHERE: ([u8; 4], u16) = ([192, 0, 2, 1], PORT);

fn home_with(set: &[(&str, &str)]) -> Option<PathBuf> {
    home_in(|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
}

#[test]
fn the_most_particular_variable_tells_where_home_is() {
    let all = [("DKV_HOME", "/own"), ("XDG_STATE_HOME", "/state"), ("HOME", "/home/me")];
    assert_eq!(home_with(&all), Some("/own".into()));
    assert_eq!(home_with(&all[1..]), Some("/state/dkv".into()));
    assert_eq!(home_with(&all[2..]), Some("/home/me/.local/state/dkv".into()));
    assert_eq!(home_with(&[]), None);
    // A variable that is set to nothing is not set.
    assert_eq!(home_with(&[("DKV_HOME", ""), ("XDG_STATE_HOME", "/state")]), home_with(&all[1..2]));
    assert_eq!(home_with(&[("DKV_HOME", ""), ("HOME", "")]), None);
}

#[test]
fn this_machine_is_where_one_can_listen() {
    for address in ["127.0.0.1:1", "127.3.2.1:4400", "[::1]:4400"] {
        assert!(is_local(address.parse().unwrap()), "{address}");
    }
    for address in ["192.0.2.1:4400", "[2001:db8::1]:4400"] {
        assert!(!is_local(address.parse().unwrap()), "{address}");
    }
}

#[test]
fn a_token_is_found_for_its_server_and_role_only() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let token = Token::generate(Role::Node, Fingerprint::of(b"authority"));
    let file = leave_token(home, PORT, &token).unwrap();
    assert_eq!(find_token(home, HERE.into(), Role::Node).unwrap(), Some(token.clone()));
    assert_eq!(find_token(home, HERE.into(), Role::Client).unwrap(), None, "another role");
    assert_eq!(
        find_token(home, (HERE.0, PORT + 1).into(), Role::Node).unwrap(),
        None,
        "another server"
    );
    assert_eq!(find_token(home, ELSEWHERE.into(), Role::Node).unwrap(), None, "another machine");
    assert_eq!(
        find_token(&home.join("other"), HERE.into(), Role::Node).unwrap(),
        None,
        "another user"
    );

    let newer = Token::generate(Role::Node, Fingerprint::of(b"authority"));
    assert_eq!(leave_token(home, PORT, &newer).unwrap(), file);
    assert_eq!(
        find_token(home, HERE.into(), Role::Node).unwrap(),
        Some(newer),
        "the last one left"
    );
}

#[test]
fn what_is_no_token_of_the_role_is_not_found() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let admin = Token::generate(Role::Admin, Fingerprint::of(b"authority"));
    let file = leave_token(home, PORT, &admin).unwrap().with_file_name("client.token");
    for content in [admin.to_string().as_bytes(), b"", b"garbage", b"\xff\xfe"] {
        durable::write(&file, content).unwrap();
        let error = find_token(home, HERE.into(), Role::Client).unwrap_err().to_string();
        assert!(error.contains("client.token: not a client token"), "{content:?}: {error}");
    }
}

#[test]
fn other_users_cannot_read_tokens() {
    let home = tempfile::tempdir().unwrap();
    let token = Token::generate(Role::Admin, Fingerprint::of(b"authority"));
    let file = leave_token(home.path(), PORT, &token).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(file.parent().unwrap()), 0o700);
    assert_eq!(file.parent().unwrap(), tokens_dir(home.path(), PORT));
}

#[test]
fn credentials_of_networks_and_roles_are_kept_apart() {
    let (one, other) = (NetworkId::random(), NetworkId::random());
    let directory = |network, role| credentials_dir(Path::new("/home"), network, role);
    assert_ne!(directory(one, Role::Client), directory(other, Role::Client));
    assert_ne!(directory(one, Role::Client), directory(one, Role::Admin));
}

#[test]
fn the_server_that_runs_here_is_found_without_its_address() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    assert_eq!(known(home), (vec![], vec![]));
    let listening = UdpSocket::bind("127.0.0.1:0").unwrap();
    let running = listening.local_addr().unwrap();
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    leave_address(home, gone).unwrap();
    assert_eq!(known(home), (vec![], vec![gone]), "its network may serve without it");
    // It listens everywhere, and is asked on loopback.
    leave_address(home, ([0, 0, 0, 0], running.port()).into()).unwrap();
    assert_eq!(known(home), (vec![running], vec![gone]));
    // One that left tokens only is taken to listen on loopback.
    durable::remove(&tokens_dir(home, running.port()).join(ADDRESS_FILE)).unwrap();
    std::fs::create_dir_all(home.join("servers/nonsense")).unwrap();
    assert_eq!(known(home), (vec![running], vec![gone]));
}

fn known(home: &Path) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
    let Servers { running, stopped } = servers(home).unwrap();
    (running, stopped)
}
