use super::*;

fn views(file: &str) -> (String, String, String) {
    let source = Source::new(file);
    let joined = |view: fn(&Line) -> &String| {
        let lines: Vec<_> = source.lines.iter().map(|line| view(line).trim_end()).collect();
        lines.join("\n")
    };
    (joined(|line| &line.code), joined(|line| &line.comment), joined(|line| &line.text))
}

#[test]
fn code_comments_and_strings_are_told_apart() {
    let (code, comment, text) = views("let a = \"b // c\"; // d \"e\"\n/* f /* g */ h */ i");
    assert_eq!(code, "let a =         ;\n                  i");
    assert_eq!(comment.trim_start(), "// d \"e\"\n/* f /* g */ h */");
    assert_eq!(text.trim(), "\"b // c\"");
}

#[test]
fn raw_strings_end_at_their_own_hashes() {
    let (code, _, text) = views("f(r#\"a \" // b\"#, br\"c\", var\"d\")");
    assert_eq!(code.split_whitespace().collect::<String>(), "f(,b,var)");
    assert!(text.contains("a \" // b"), "{text}");
}

#[test]
fn lifetimes_are_no_character_literals() {
    let (code, ..) = views("fn f<'a>(c: &'a str) -> char { if c == '\\'' { '\"' } else { 'x' } }");
    assert!(code.contains("<'a>(c: &'a str)"), "{code}");
    assert!(!code.contains('x') && !code.contains('"'), "{code}");
}

#[test]
fn lines_know_whether_a_string_goes_on_in_them() {
    let source = Source::new("let a = \"b\nc\";\nd\n");
    let continues: Vec<bool> = source.lines.iter().map(|line| line.continues).collect();
    assert_eq!(continues, [false, true, false]);
}
