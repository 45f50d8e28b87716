//! Data directories, usable and unusable.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use dkv_server::{Server, StartError};
use dkv_wire::identity::Role;

use crate::support::Place;

async fn why_not(place: &Place) -> String {
    match Server::start(place.config()).await {
        Err(error) => {
            let said = error.to_string();
            assert!(!said.contains('\n'), "one line: {said}");
            said
        }
        Ok(_) => panic!("the server started"),
    }
}

/// Returns a place with a network whose server has stopped.
async fn used() -> Place {
    let place = Place::new();
    place.start().await.shutdown().await;
    place
}

fn modes(path: &Path, found: &mut Vec<(String, u32)>) {
    let mode = std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    found.push((path.display().to_string(), mode));
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            modes(&entry.unwrap().path(), found);
        }
    }
}

#[tokio::test]
async fn only_the_owner_can_read_the_directory() {
    let place = Place::new();
    let _server = place.start().await;
    let mut found = Vec::new();
    modes(&place.data_dir(), &mut found);
    modes(&place.home(), &mut found);
    assert!(found.len() > 10);
    for (path, mode) in found {
        let expected = if Path::new(&path).is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{path} has mode {mode:o}");
    }
}

#[tokio::test]
async fn a_network_stays_the_same_across_starts() {
    let place = Place::new();
    let server = place.start().await;
    let (network, token) = (server.network(), place.token(Role::Node));
    assert!(server.is_new());
    let client = place.peer(server.address(), Role::Client).await;
    server.shutdown().await;
    let server = place.start().await;
    assert!(!server.is_new());
    assert_eq!((server.network(), place.token(Role::Node)), (network, token));
    client.again(server.address()).await;
}

#[tokio::test]
async fn an_interrupted_first_start_begins_anew() {
    let place = used().await;
    let books = place.data_dir().join("books.json");
    let cut: [&dyn Fn(); 3] = [
        &|| std::fs::write(&books, "half a f").unwrap(),
        &|| std::fs::remove_file(&books).unwrap(),
        &|| std::fs::remove_file(place.data_dir().join("authority.der")).unwrap(),
    ];
    for cut in cut {
        cut();
        std::fs::write(place.data_dir().join("creating"), "").unwrap();
        let server = place.start().await;
        assert!(server.is_new());
        place.peer(server.address(), Role::Node).await;
        server.shutdown().await;
        assert!(!place.data_dir().join("creating").exists());
    }
}

#[tokio::test]
async fn an_unwritable_directory_is_refused() {
    let place = Place::new();
    std::fs::write(place.data_dir(), "a file").unwrap();
    let said = why_not(&place).await;
    assert!(said.starts_with("cannot use the data directory "), "{said}");
    let mut config = place.config();
    config.data_dir = Path::new("/proc/dkv").to_owned();
    assert!(matches!(Server::start(config).await, Err(StartError::DataDir(_))));
}

#[tokio::test]
async fn a_failed_start_leaves_nothing_behind() {
    let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let place = Place::new();
    let mut config = place.config();
    config.listen = other.local_addr().unwrap();
    config.data_dir = place.root.path().join("a").join("b");
    Server::start(config.clone()).await.map(drop).unwrap_err();
    assert_eq!(std::fs::read_dir(place.root.path()).unwrap().count(), 0);

    // An existing empty directory stays, and stays empty.
    std::fs::create_dir_all(&config.data_dir).unwrap();
    Server::start(config.clone()).await.map(drop).unwrap_err();
    assert_eq!(std::fs::read_dir(&config.data_dir).unwrap().count(), 0);

    // One file cannot be written.
    let place = Place::new();
    std::fs::create_dir(place.data_dir()).unwrap();
    std::fs::write(place.data_dir().join("creating"), "").unwrap();
    std::fs::create_dir(place.data_dir().join("books.json")).unwrap();
    let said = why_not(&place).await;
    assert!(said.contains("books.json: "), "{said}");
    let left: Vec<_> = std::fs::read_dir(place.data_dir()).unwrap().map(Result::unwrap).collect();
    let left: Vec<_> = left.iter().map(std::fs::DirEntry::file_name).collect();
    assert!(left.iter().all(|name| name == "lock" || name == "books.json"), "{left:?}");

    // An existing network is kept.
    let place = used().await;
    let mut config = place.config();
    config.listen = other.local_addr().unwrap();
    Server::start(config).await.map(drop).unwrap_err();
    assert!(!place.start().await.is_new());
}

#[tokio::test]
async fn files_that_others_can_read_are_narrowed() {
    let place = used().await;
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(&place.data_dir(), 0o755);
    open(&place.data_dir().join("authority-key.der"), 0o644);
    open(&place.data_dir().join("books.json"), 0o666);
    let _server = place.start().await;
    let mut found = Vec::new();
    modes(&place.data_dir(), &mut found);
    assert!(found.iter().all(|(_, mode)| mode & 0o077 == 0), "{found:?}");
}

/// Does nothing unless run by root: only root can give files away.
#[tokio::test]
async fn files_of_another_user_are_refused() {
    for name in ["", "authority-key.der"] {
        let place = used().await;
        let path = if name.is_empty() { place.data_dir() } else { place.data_dir().join(name) };
        if std::os::unix::fs::chown(&path, Some(65_534), None).is_err() {
            return;
        }
        let said = why_not(&place).await;
        let expected = format!("{}: it belongs to user 65534", path.display());
        assert!(
            said.contains(expected.trim_end_matches('/')) || said.contains(&expected),
            "{said}"
        );
    }
}

#[tokio::test]
async fn an_unreadable_token_file_does_not_revoke_the_token() {
    let place = used().await;
    let token = place.data_dir().join("tokens").join("node.token");
    let kept = std::fs::read(&token).unwrap();
    std::fs::remove_file(&token).unwrap();
    // Reading a directory fails, even for root.
    std::fs::create_dir(&token).unwrap();
    let server = place.start().await;
    std::fs::remove_dir(&token).unwrap();
    std::fs::write(&token, kept).unwrap();
    place.peer(server.address(), Role::Node).await;
}

#[tokio::test]
async fn a_foreign_directory_is_left_alone() {
    let place = Place::new();
    std::fs::create_dir(place.data_dir()).unwrap();
    std::fs::set_permissions(place.data_dir(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(place.data_dir().join("letters.txt"), "dear").unwrap();
    let said = why_not(&place).await;
    assert!(said.contains("is not empty and holds no dkv network"), "{said}");
    let mode = std::fs::metadata(place.data_dir()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o755);
    assert_eq!(std::fs::read_dir(place.data_dir()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_directory_with_only_lost_and_found_counts_as_empty() {
    let place = Place::new();
    std::fs::create_dir_all(place.data_dir().join("lost+found")).unwrap();
    let server = place.start().await;
    assert!(server.is_new());
    server.shutdown().await;
    assert!(!place.start().await.is_new());
}

#[tokio::test]
async fn a_second_server_is_refused() {
    let place = Place::new();
    let server = place.start().await;
    let said = why_not(&place).await;
    assert!(said.contains("another dkv-server runs on the data directory"), "{said}");
    server.shutdown().await;
    place.start().await;
}

#[tokio::test]
async fn damaged_and_missing_files_are_reported() {
    for (file, content, expected) in [
        ("books.json", Some("{}"), "books.json is damaged"),
        ("books.json", Some(""), "books.json is damaged"),
        ("books.json", Some("[1, 2]"), "books.json is damaged"),
        ("books.json", None, "books.json is missing"),
        ("authority-key.der", Some("rubbish"), "authority-key.der is damaged"),
        ("authority-key.der", None, "authority-key.der is missing"),
        ("authority-key.der", Some(""), "authority-key.der is missing or empty"),
        ("authority.der", Some("rubbish"), "authority.der is damaged"),
        ("authority.der", Some(""), "authority.der is missing or empty"),
        ("authority.der", None, "authority.der is missing"),
    ] {
        let place = used().await;
        let path = place.data_dir().join(file);
        match content {
            Some(content) => std::fs::write(&path, content).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let said = why_not(&place).await;
        assert!(said.contains(expected) && said.contains("backup"), "{file}: {said}");
    }
}

#[tokio::test]
async fn a_truncated_authority_certificate_is_reported() {
    let place = used().await;
    let path = place.data_dir().join("authority.der");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let said = why_not(&place).await;
    assert!(said.contains("authority.der is damaged"), "{said}");
}

#[tokio::test]
async fn the_key_of_another_authority_is_refused() {
    let (place, other) = (used().await, used().await);
    let key = |place: &Place| place.data_dir().join("authority-key.der");
    std::fs::copy(key(&other), key(&place)).unwrap();
    let said = why_not(&place).await;
    assert!(said.contains("certificate is for another key"), "{said}");
}

#[tokio::test]
async fn a_taken_port_is_refused() {
    let place = Place::new();
    let mut config = place.config();
    let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    config.listen = other.local_addr().unwrap();
    let error = Server::start(config).await.err().unwrap();
    assert!(matches!(error, StartError::PortTaken(_)), "{error}");
    let mut config = place.config();
    config.listen = "192.0.2.77:0".parse().unwrap();
    let error = Server::start(config).await.err().unwrap();
    assert!(matches!(error, StartError::Listen { .. }), "{error}");
}
