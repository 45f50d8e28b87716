//! Messages for failed connections.

use std::fmt::Write;

use dkv_api::Role;

use super::*;

#[test]
fn a_failed_connection_says_what_to_do() {
    let server = ([127, 0, 0, 1], 4400).into();
    let refused = |refusal| ConnectError::Join(JoinError::Refused(refusal));
    let removed = JoinRefusal::Denied.to_string();
    let errors = [
        ConnectError::NoAddress,
        ConnectError::Address { address: "host:no".into(), why: "no port".into() },
        ConnectError::Unresolved("cannot look up foo:4400: Name or service not known".into()),
        ConnectError::Unreachable("no answer".into()),
        ConnectError::Join(JoinError::Connect(dkv_wire::quic::ConnectError::Clock {
            address: server,
            why: "set the clocks right".into(),
        })),
        ConnectError::Join(JoinError::OtherNetwork(server)),
        refused(JoinRefusal::Unknown),
        refused(JoinRefusal::Expired),
        refused(JoinRefusal::UsedUp),
        refused(JoinRefusal::Busy),
        ConnectError::Expired { role: Role::Client },
        ConnectError::NoCredentials { role: Role::Admin },
        ConnectError::Denied(format!(
            "the certificate has expired, and the server gives no new one: {removed}"
        )),
    ];
    let mut said = String::new();
    for error in &errors {
        writeln!(said, "{}", connect_problem(error).message).unwrap();
    }
    expect_test::expect![[r#"
        no address of a registration server or node was given; give the address of the server as HOST:PORT
        host:no: no port; give the address of the server as HOST:PORT
        cannot look up foo:4400: Name or service not known; check the name, or give the IP address of the server
        cannot reach the network: no answer; check that the server is running there, or start one with dkv server or dkv local
        cannot reach the registration server: 127.0.0.1:4400: set the clocks right
        the server at 127.0.0.1:4400 belongs to another network than the token (its certificate authority is not the one that the token names); give a token of that server's network with --token-file, or another address
        not admitted: the join token is not one of this network's; ask an administrator of the network for a token, and give it with --token-file
        not admitted: the join token has expired; ask an administrator of the network for a new one
        not admitted: the join token has been used up; ask an administrator of the network for a new one
        not admitted: too many are joining at once; try again in a moment
        the stored client certificate has expired; connect once by the address of the registration server, which issues a new one
        no stored admin certificate is accepted by the given nodes; connect once by the address of the registration server
        denied: the certificate has expired, and the server gives no new one: this certificate holder was removed from the network; an administrator has revoked this client: ask for a new token, and join with another DKV_HOME
    "#]].assert_eq(&said);
}

#[test]
fn failed_connections_have_a_kind() {
    let of = |error: ConnectError| connect_problem(&error).failure;
    assert_eq!(of(ConnectError::Unreachable("no answer".into())), Failure::Unavailable);
    assert_eq!(of(ConnectError::Unresolved("no such name".into())), Failure::Unavailable);
    assert_eq!(of(ConnectError::Denied("revoked".into())), Failure::Denied);
    assert_eq!(of(ConnectError::NoAddress), Failure::Usage);
    // If nothing listens, a missing token is not the problem.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = socket.local_addr().unwrap();
    let missing = || ConnectError::Token(TokenError::Missing { server, role: Role::Client });
    assert_eq!(of(missing()), Failure::Denied);
    drop(socket);
    assert_eq!(of(missing()), Failure::Unavailable);
    assert_eq!(of(ConnectError::NoCredentials { role: Role::Admin }), Failure::Denied);
}

#[test]
fn programs_get_kind_and_effect() {
    let key = Key::new("color").unwrap();
    let lost = Error::Unknown("the connection was lost".into());
    let told = write_problem(&key, Condition::Always, "written", &lost).document();
    assert_eq!(told["kind"], "unknown");
    assert_eq!(told["effect"], "unknown");
    assert_eq!(told["exit_status"], 6);
    assert_eq!(told["key"], "color");
    let binary = Key::new(*b"\xff").unwrap();
    let told = read_problem(&binary, &Error::Unavailable("no majority".into())).document();
    assert_eq!((&told["kind"], &told["key_base64"]), (&"unavailable".into(), &"/w==".into()));
}
