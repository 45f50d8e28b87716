use super::*;

/// Returns what the rule called `name` says of the files.
fn findings(name: &str, files: &[(&str, &str)]) -> Vec<String> {
    let rule = RULES.iter().find(|rule| rule.name == name).expect("a rule of this name");
    let findings = (rule.check)(&Tree::of(files.iter().copied()));
    findings.iter().map(ToString::to_string).collect()
}

/// Checks that the rule has one finding, which begins with `wanted`, in the first text and none in
/// the second.
fn assert_tells_apart(name: &str, path: &str, bad: &str, wanted: &str, good: &str) {
    let found = findings(name, &[(path, bad)]);
    assert!(found.len() == 1 && found[0].starts_with(wanted), "{found:#?}");
    assert_eq!(findings(name, &[(path, good)]), Vec::<String>::new());
}

#[test]
fn width_spares_strings_tables_fences_and_single_words() {
    let words = "word ".repeat(25);
    let long = "w".repeat(120);
    assert_tells_apart(
        "width",
        "a/src/b.rs",
        &format!("// {words}\n"),
        "a/src/b.rs:1: 128 columns",
        &format!("let a = \"{words}\";\n// https://{long}\n//! | {words} |\n"),
    );
    assert_tells_apart(
        "width",
        "docs/b.md",
        &format!("Short.\n{words}\n"),
        "docs/b.md:2: ",
        &format!("| {words} |\n```sh\n{words}\n```\n- [{long}](c.md)\n"),
    );
}

#[test]
fn length_is_bounded_for_sources() {
    let lines = "a\n".repeat(601);
    assert_tells_apart("length", "a.rs", &lines, "a.rs:601: 601 lines", &"a\n".repeat(600));
    assert!(
        findings("length", &[("a.txt", &lines), ("b.rs", &format!("// @generated\n{lines}"))])
            .is_empty()
    );
    let warned = warnings(&Tree::of([("a.rs", "a\n".repeat(500).as_str())]));
    assert_eq!(warned.len(), 1);
}

#[test]
fn headers_stand_before_the_first_item() {
    let good = "// License.\n#![no_main]\n\n//! A module.\nuse a;\n";
    assert_tells_apart("headers", "a/src/b.rs", "use a;\n//! Late.\n", "a/src/b.rs:1: ", good);
    assert!(findings("headers", &[("a/src/b/tests.rs", "use super::*;\n")]).is_empty());
}

#[test]
fn phrases_are_found_where_they_are_wrong() {
    let bad = "//! Of two leaders the older one loses.\n// Whoever asks is told.\n";
    let found = findings("phrases", &[("a.rs", bad)]);
    assert_eq!(found.len(), 3, "{found:#?}");
    let good =
        "//! The older one of two\n//! of them; of course. In nobody's log.\nlet of = \"Of\";\n";
    assert_eq!(findings("phrases", &[("a.rs", good)]), Vec::<String>::new());
    assert_tells_apart("phrases", "b.md", "A.\n\n- Of all.\n", "b.md:3: \"of\"", "All\nof it.\n");
}

#[test]
fn module_files_have_one_place() {
    let found = findings("module_files", &[("a/src/b/mod.rs", ""), ("a/tests/c/mod.rs", "")]);
    assert_eq!(found, ["a/src/b/mod.rs:1: a `mod.rs`; move it to a/src/b.rs"]);
    let path = "#[path = \"x.rs\"]\nmod x;\n";
    assert_tells_apart("module_files", "a.rs", path, "a.rs:1: `#[path]`", "// #[path]\nmod x;\n");
}

#[test]
fn links_lead_to_files_and_headings() {
    let there = ("docs/b.md", "# Big\n## One, two\n");
    let link = |target: &str| format!("See [b]({target}).\n");
    for (target, finds) in [
        ("b.md", 0),
        ("b.md#one-two", 0),
        ("https://example.com/c.md", 0),
        ("../docs", 0),
        ("c.md", 1),
        ("b.md#three", 1),
        ("#here", 1),
    ] {
        let found = findings("links", &[("docs/a.md", &link(target)), there]);
        assert_eq!(found.len(), finds, "{target}: {found:?}");
    }
    let files = [("a/src/b.rs", "// see docs/b.md and docs/c.md.\n"), there];
    assert_eq!(
        findings("links", &files),
        ["a/src/b.rs:1: no document docs/c.md; name one of docs/"]
    );
    let spans = ("docs/a.md", "`src/b.rs`, `b.rs`, `c/b.rs`\n");
    let found = findings("links", &[spans, ("a/src/b.rs", "")]);
    assert_eq!(found, ["docs/a.md:1: no file ends with `c/b.rs`; name one of the tree"]);
}

#[test]
fn code_spans_name_files_and_tests_that_are_there() {
    let there = [
        ("a/src/raft/log.rs", "mod tests {\n    fn grows() {}\n}\n"),
        ("a/src/raft/tests.rs", "fn elects() {}\n"),
    ];
    for (span, finds) in [
        ("raft/log.rs", 0),
        ("raft/session.rs", 1),
        ("log::tests", 0),
        ("raft::log::tests::grows", 0),
        ("raft::tests::elects", 0),
        ("a::raft::tests", 0),
        ("log::tests::shrinks", 1),
        ("session::tests", 1),
        ("crate::Tests::new()", 0),
    ] {
        let comment = format!("// See `{span}`.\n");
        for name in ["b/src/c.rs", "docs/a.md"] {
            let files = [there[0], there[1], (name, comment.as_str())];
            let found = findings("links", &files);
            assert_eq!(found.len(), finds, "{name}: {span}: {found:?}");
        }
    }
}

#[test]
fn figures_stand_near_their_command() {
    let table = "| work | p50 ms | p99 ms |\n|---|---|---|\n| put | 0.46 | 1.2 |\n";
    let bad = format!("## Load\n\n`dkv-bench load`\n\n## Other\n\n{table}");
    let good = format!("## Load\n\n{table}\n```sh\ntarget/release/dkv-bench load\n```\n");
    assert_tells_apart("figures", "docs/a.md", &bad, "docs/a.md:7: ", &good);
    let bounds = "| field | unit |\n|---|---|\n| a | ms |\n";
    assert!(findings("figures", &[("docs/a.md", bounds)]).is_empty());
}

#[test]
fn crates_say_what_they_are_and_forbid_unsafe_code() {
    let manifest = "[package]\nname = \"dkv-base\"\n";
    let found = findings("crates", &[("base/Cargo.toml", manifest)]);
    assert_eq!(found.len(), 2, "{found:#?}");
    let manifest =
        "[package]\nname = \"dkv-base\"\ndescription = \"Base\"\n[lints]\nworkspace = true\n";
    let workspace = "[workspace.lints.rust]\nunsafe_code = \"forbid\"\n";
    assert!(
        findings("crates", &[("base/Cargo.toml", manifest), ("Cargo.toml", workspace)]).is_empty()
    );
}

#[test]
fn crates_depend_downwards() {
    let manifest = |name: &str, dependency: &str| {
        format!(
            "[package]\nname = \"{name}\"\ndescription = \"A\"\n[lints]\nworkspace = true\n\
             [dependencies]\n{dependency}.workspace = true\n"
        )
    };
    let check = |name: &str, dependency: &str| {
        let workspace = ("Cargo.toml", "[workspace.lints.rust]\nunsafe_code = \"forbid\"\n");
        findings("crates", &[("a/Cargo.toml", &manifest(name, dependency)), workspace])
    };
    assert!(check("dkv-node", "dkv-wire").is_empty());
    assert_eq!(check("dkv-wire", "dkv-node").len(), 1);
    assert_eq!(check("dkv-server", "dkv-node").len(), 1);
    assert_eq!(check("dkv-node", "dkv-api").len(), 1);
    assert_eq!(check("unheard-of", "serde").len(), 1);
}

#[test]
fn the_fuzzers_lock_file_knows_our_crates() {
    let manifest = (
        "a/Cargo.toml",
        "[package]\nname = \"dkv-a\"\n[dependencies]\nbytes.workspace = true\n\
         rand = { workspace = true, optional = true }\n[dev-dependencies]\nproptest = \"1\"\n",
    );
    let lock = |version: &str, dependencies: &str| {
        format!(
            "[[package]]\nname = \"dkv-a\"\nversion = \"{version}\"\ndependencies = [\n\
             {dependencies}]\n"
        )
    };
    let here = lock("0.1.0", " \"bytes 1.0\",\n \"proptest\",\n \"rand\",\n");
    let check = |there: &str| {
        findings("lock_files", &[manifest, ("Cargo.lock", &here), ("fuzz/Cargo.lock", there)])
    };
    assert!(check(&lock("0.1.0", " \"bytes\",\n")).is_empty());
    assert!(check(&lock("0.1.0", " \"bytes\",\n \"rand\",\n")).is_empty());
    for (version, dependencies, wanted) in [
        ("0.0.9", " \"bytes\",\n", "version 0.0.9 is 0.1.0 now"),
        ("0.1.0", "", "depends on bytes now"),
        ("0.1.0", " \"bytes\",\n \"serde\",\n", "does not depend on serde any more"),
    ] {
        let found = check(&lock(version, dependencies));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with(&format!("fuzz/Cargo.lock:1: dkv-a: {wanted}")), "{found:#?}");
    }
}

#[test]
fn homonyms_are_found_within_a_crate() {
    let one = ("a/src/b.rs", "pub struct Plan;\npub(crate) enum Args {}\n");
    let two = ("a/src/c.rs", "pub(super) type Plan<T> = T;\npub struct Args;\n");
    let found = findings("homonyms", &[one, two]);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains("second `Plan` in a, beside a/src/b.rs:1"), "{found:#?}");
    let good = ("d/src/c.rs", "pub struct Plan;\nstruct Hidden;\nimpl A { pub type Plan = B; }\n");
    assert!(findings("homonyms", &[one, good]).is_empty());
}

#[test]
fn old_names_of_modules_stay_away() {
    let found =
        findings("old_names", &[("node/src/lookout.rs", ""), ("node/src/raft/drive/mod.rs", "")]);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(
        findings("old_names", &[("server/src/service.rs", ""), ("node/src/net.rs", "")]).is_empty()
    );
    for (code, finds) in [
        ("RaftPulse {}", 1),
        ("const HEARINGS_MAX: usize;", 1),
        ("note_freshness()", 1),
        ("let dug_ms = 1;", 1),
        ("impulse(); debug(); // the graves\n", 0),
    ] {
        let found = findings("old_names", &[("node/src/net.rs", code)]);
        assert_eq!(found.len(), finds, "{code}: {found:?}");
    }
}

#[test]
fn libraries_are_named_in_their_place() {
    let code = "use openraft::Raft;\n";
    let found = findings("libraries", &[("node/src/raft/log.rs", code), ("node/src/run.rs", code)]);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with("node/src/run.rs:1: `openraft`"), "{found:#?}");
    assert!(findings("libraries", &[("node/src/run.rs", "// openraft::Raft\n")]).is_empty());
}
