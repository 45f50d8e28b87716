use super::*;

#[test]
fn only_a_final_answer_of_the_server_stops_a_node() {
    let parent = tempfile::tempdir().unwrap();
    let directory = DataDir::open(parent.path()).unwrap();
    let address = ([192, 0, 2, 1], 4400).into();
    let why = || "why".to_owned();
    let last = [
        ServerError::Connect(ConnectError::Refused { address, why: why() }),
        ServerError::Refused(ServerRefusal::NameTaken(why())),
        ServerError::Refused(ServerRefusal::Denied(why())),
        ServerError::Refused(ServerRefusal::Invalid(why())),
        ServerError::Resolve(why(), why()),
    ];
    for error in last {
        assert!(fatal(&error, &directory).is_some(), "{error}");
    }
    let passing = [
        ServerError::Connect(ConnectError::Unreachable { address, why: why() }),
        ServerError::Connect(ConnectError::Local(why())),
        ServerError::Refused(ServerRefusal::Storage(why())),
        ServerError::Silent(why()),
        ServerError::Unexpected,
    ];
    for error in passing {
        assert!(fatal(&error, &directory).is_none(), "{error}");
        assert!(fatal_while_running(&error, &directory).is_none(), "{error}");
    }
}

/// A stranger that answers at the server's address must not be able to stop a node.
#[test]
fn a_running_node_stops_only_at_the_word_of_its_own_server() {
    let parent = tempfile::tempdir().unwrap();
    let directory = DataDir::open(parent.path()).unwrap();
    let address = ([192, 0, 2, 1], 4400).into();
    let refused = ServerError::Connect(ConnectError::Refused { address, why: "why".into() });
    assert!(fatal_while_running(&refused, &directory).is_none());
    let removed = ServerError::Connect(ConnectError::Removed { address, why: "why".into() });
    assert!(fatal_while_running(&removed, &directory).is_some());
}

#[test]
fn the_books_of_a_server_do_not_stop_a_node_that_the_directory_lists() {
    let parent = tempfile::tempdir().unwrap();
    let directory = DataDir::open(parent.path()).unwrap();
    let full = ServerRefusal::Invalid("the network has 256 nodes already".into());
    for refusal in [full, ServerRefusal::NameTaken("n1".into())] {
        let error = ServerError::Refused(refusal);
        assert!(fatal_while_running(&error, &directory).is_some());
        assert!(!fatal_if_listed(&error), "{error}");
    }
    let address = ([192, 0, 2, 1], 4400).into();
    let last = [
        ServerError::Refused(ServerRefusal::Denied("revoked".into())),
        ServerError::Connect(ConnectError::Removed { address, why: "why".into() }),
        // Only a node that has just started is stopped by these.
        ServerError::Connect(ConnectError::Refused { address, why: "why".into() }),
        ServerError::Resolve("name".into(), "why".into()),
    ];
    for error in last {
        assert!(fatal_if_listed(&error), "{error}");
    }
}
