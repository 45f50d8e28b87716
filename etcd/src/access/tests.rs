use super::permissions::Access::{Read, Write};
use super::permissions::Permission;
use super::state::{AuthState, Grants};
use crate::error::EtcdError;
use crate::proto::authpb;
use crate::proto::authpb::permission::Type;

/// Returns a state with `root`, and a user who may read keys from a to b.
fn state() -> AuthState {
    let mut state = AuthState::default();
    for user in ["root", "mars"] {
        state.add_user(user, Some("hash".into())).unwrap();
    }
    state.grant_role("root", "root").unwrap();
    state.add_role("reader").unwrap();
    let permission =
        authpb::Permission { perm_type: Type::Read.into(), key: "a".into(), range_end: "b".into() };
    state.grant_permission("reader", Permission::new(&permission).unwrap()).unwrap();
    state.grant_role("mars", "reader").unwrap();
    state
}

#[test]
fn authentication_needs_a_user_root_with_the_role_root() {
    let mut state = AuthState::default();
    assert_eq!(state.enable(), Err(EtcdError::ROOT_USER_NOT_EXIST));
    state.add_user("root", None).unwrap();
    assert_eq!(state.enable(), Err(EtcdError::ROOT_ROLE_NOT_EXIST));
    state.grant_role("root", "root").unwrap();
    let revision = state.revision;
    assert_eq!((state.enable(), state.enable()), (Ok(true), Ok(false)));
    assert_eq!(state.revision, revision);
    assert_eq!(state.delete_user("root"), Err(EtcdError::INVALID_AUTH_MGMT));
    assert_eq!(state.revoke_role("root", "root"), Err(EtcdError::INVALID_AUTH_MGMT));
    assert_eq!(state.delete_role("root"), Err(EtcdError::INVALID_AUTH_MGMT));
    assert_eq!((state.disable(), state.disable()), (Ok(true), Ok(false)));
    state.delete_user("root").unwrap();
}

#[test]
fn a_user_may_what_the_roles_say() {
    let mut state = state();
    let grants = Grants::new(&state);
    assert!(grants.allow("mars", Read, b"a5", b""));
    assert!(!grants.allow("mars", Write, b"a5", b"") && !grants.allow("mars", Read, b"b", b""));
    assert!(state.is_root("root") && !grants.allow("venus", Read, b"a", b""));
    state.delete_role("reader").unwrap();
    assert_eq!(state.roles_of("mars"), Ok(Vec::new()));
    assert!(!Grants::new(&state).allow("mars", Read, b"a5", b""));
}

#[test]
fn refused_changes_change_nothing() {
    let mut state = state();
    let before = state.clone();
    let errors = [
        (state.add_user("", None), EtcdError::USER_EMPTY),
        (state.add_user("mars", None), EtcdError::USER_ALREADY_EXIST),
        (state.delete_user("venus"), EtcdError::USER_NOT_FOUND),
        (state.change_password("venus", "x".into()), EtcdError::USER_NOT_FOUND),
        (state.grant_role("venus", "reader"), EtcdError::USER_NOT_FOUND),
        (state.grant_role("mars", "writer"), EtcdError::ROLE_NOT_FOUND),
        (state.revoke_role("mars", "writer"), EtcdError::ROLE_NOT_GRANTED),
        (state.add_role(""), EtcdError::ROLE_EMPTY),
        (state.add_role("reader"), EtcdError::ROLE_ALREADY_EXIST),
        (state.delete_role("writer"), EtcdError::ROLE_NOT_FOUND),
        (state.revoke_permission("reader", b"a", b""), EtcdError::PERMISSION_NOT_GRANTED),
        (state.revoke_permission("writer", b"a", b""), EtcdError::ROLE_NOT_FOUND),
    ];
    for (at, (got, expected)) in errors.into_iter().enumerate() {
        assert_eq!(got, Err(expected), "{at}");
    }
    assert_eq!(state.grant_role("mars", "reader"), Ok(false));
    assert_eq!(state, before);
}

#[test]
fn the_state_survives_being_written() {
    let state = state();
    let written = serde_json::to_vec(&state).unwrap();
    assert_eq!(serde_json::from_slice::<AuthState>(&written).unwrap(), state);
}
