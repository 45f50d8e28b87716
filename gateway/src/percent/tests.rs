//! Decoding of paths and forms.

use proptest::prelude::*;

use super::*;

#[test]
fn paths_and_forms_are_decoded() {
    assert_eq!(decode(b"a%2Fb%ff+%25").unwrap().as_ref(), b"a/b\xff+%");
    for wrong in ["%", "a%2", "%zz", "%+1", "%%20"] {
        assert_eq!(decode(wrong.as_bytes()), Err(BadPercent), "{wrong}");
    }
    let field = |form: &str| form_field(form.as_bytes(), b"val");
    assert_eq!(field("val=bart").unwrap(), b"bart");
    assert_eq!(field("x=1&val=a+b%26c%3D&val=2").unwrap(), b"a b&c=");
    assert_eq!(field("val=100%").unwrap(), b"100%");
    assert_eq!(field("val=%zz=").unwrap(), b"%zz=");
    assert_eq!(field("v%61l=1").unwrap(), b"1");
    assert_eq!(field("val").unwrap(), b"");
    assert_eq!(field("value=1"), None);
    assert_eq!(field(""), None);
}

proptest! {
    #[test]
    fn encoded_bytes_are_decoded(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let text: String = bytes.iter().map(|byte| format!("%{byte:02X}")).collect();
        prop_assert_eq!(decode(text.as_bytes()).unwrap().into_owned(), bytes.clone());
        prop_assert_eq!(form_field(format!("k={text}").as_bytes(), b"k").unwrap(), bytes);
    }

    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = decode(&bytes);
        let _ = form_field(&bytes, b"val");
    }
}
