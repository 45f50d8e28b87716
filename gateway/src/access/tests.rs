//! Tokens and the rights that they grant.

use dkv_api::{NetworkId, Uuid};
use dkv_wire::bearer;
use dkv_wire::certificate::Authority;

use super::*;

fn head(method: &str, target: &str, fields: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap().into_parts().0
}

fn authorize(
    access: &Access,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
) -> Result<Option<Bearer>, Refused> {
    let no = |_: &str| false;
    let (is_public, is_of_network, is_stream) = (no, no, no);
    let guard = AccessGuard { access: access.clone(), is_public, is_of_network, is_stream };
    guard.authorize(&head(method, target, fields))
}

fn status(access: &Access, method: &str, target: &str, fields: &[(&str, &str)]) -> u16 {
    let authorized = authorize(access, method, target, fields);
    authorized.map_or_else(|refused| refused.problem.status.as_u16(), |_| 200)
}

#[test]
fn a_token_grants_its_rights_and_no_more() {
    let network = NetworkId(Uuid::from_u128(7));
    let authority = Authority::create(network, SystemTime::now()).unwrap();
    let token = |number: u128, rights, expires_ms| {
        let holder = HolderId(Uuid::from_u128(number));
        let bearer = Bearer { network, holder, rights, expires_ms, user: None };
        format!("Bearer {}", bearer::sign(&authority, &bearer).unwrap())
    };
    let verifier = Verifier::new(network, authority.certificate()).unwrap();
    let is_denied: IsDenied = Arc::new(|holder| holder == HolderId(Uuid::from_u128(3)));
    let access = Access::Tokens(Arc::new(Tokens::new(verifier, is_denied)));
    let put = |field: &str| status(&access, "PUT", "/v1/kv/k", &[("authorization", field)]);
    let get = |field: &str| status(&access, "GET", "/v1/kv/k", &[("authorization", field)]);
    let (writer, reader) = (token(1, Rights::Write, None), token(2, Rights::Read, None));
    for _ in 0..2 {
        assert_eq!((put(&writer), get(&writer), get(&reader), put(&reader)), (200, 200, 200, 403));
    }
    let query = |field| status(&access, "POST", "/query", &[("authorization", field)]);
    assert_eq!(query(&reader), 200);
    let (denied, ended) = (token(3, Rights::Write, None), token(1, Rights::Write, Some(1)));
    for bad in [denied.as_str(), &ended, "", "Bearer", "Bearer x", "Basic YTpi", &writer[7..]] {
        assert_eq!(get(bad), 401, "{bad}");
    }
    // The caller is known, as far as its token says, without a second look at the signature.
    let refused = |field: &str| {
        let refused = authorize(&access, "PUT", "/v1/kv/k", &[("authorization", field)]);
        refused.unwrap_err().bearer.map(|bearer| bearer.holder.0.as_u128())
    };
    for _ in 0..2 {
        let all = [&reader, &denied, &ended].map(|field| refused(field));
        assert_eq!((all, refused("Bearer x")), ([Some(2), Some(3), Some(1)], None));
    }
    let Access::Tokens(tokens) = &access else { unreachable!() };
    assert!(lock(&tokens.known).contains_key(&ended[7..]));
    assert_eq!(status(&access, "GET", "/metrics", &[]), 401);
    assert_eq!(status(&access, "GET", "/livez", &[]), 200);
    let both = [("authorization", writer.as_str()), ("authorization", &reader)];
    assert_eq!(status(&access, "GET", "/v1/kv/k", &both), 401);
}
