//! Valid and invalid command lines.

mod messages;

use std::time::Duration;

use clap::CommandFactory;
use dkv_api::{Level, Role};

use super::*;

fn parse(line: &[&str]) -> Result<Line, clap::Error> {
    Line::read(["dkv"].iter().chain(line).map(OsString::from))
}

fn commands(line: &[&str]) -> Vec<String> {
    let line = parse(line).unwrap();
    assert!(line.subcommand.is_none());
    line.commands.into_iter().map(|command| command.into_string().unwrap()).collect()
}

fn wrong(line: &[&str]) -> String {
    parse(line).unwrap_err().to_string()
}

fn command(line: &[&str]) -> String {
    parse(line).unwrap().subcommand.unwrap().command().unwrap().unwrap().to_string()
}

#[test]
fn clap_accepts_the_definition() {
    Cli::command().debug_assert();
}

#[test]
fn commands_follow_an_address_or_come_first() {
    assert_eq!(commands(&["127.0.0.1:4400", "W,a,1", "R,a"]), ["W,a,1", "R,a"]);
    assert_eq!(commands(&["localhost", "W,-1,-2"]), ["W,-1,-2"]);
    assert_eq!(commands(&["localhost", "--", "put", "k", "--x"]), ["put", "k", "--x"]);
    assert_eq!(commands(&["localhost"]), [""; 0]);
    for alone in [&["W,a,1", "R,a"][..], &["put a 1", "get a"], &["--", "put", "k", "--x"]] {
        let line = parse(alone).unwrap();
        assert!(line.address.is_none(), "{alone:?}");
        assert_eq!(line.commands.len(), alone.iter().filter(|word| **word != "--").count());
    }
    let both = parse(&["W,a,1", "status"]).unwrap();
    assert_eq!(both.commands, ["W,a,1"]);
    assert!(matches!(both.subcommand, Some(Subcommand::Status { .. })));
}

#[test]
fn a_subcommand_with_operands_works_with_and_without_an_address() {
    for (words, means) in [
        (&["put", "k", "-1"][..], "put k -1"),
        (&["put", "k", "v", "eventual"], "put k v eventual"),
        (&["insert", "k", "v"], "put k v if-absent"),
        (&["delete", "k", "if-revision", "3"], "delete k if-revision 3"),
        (&["get", "status"], "get status"),
        (&["get", "local"], "get local"),
        (&["get", "127.0.0.1:4400"], "get 127.0.0.1:4400"),
        (&["get", "k", "session", "at-least", "12"], "get k session at-least 12"),
        (&["put", "k", "-"], "put k -"),
        (&["put", "k", "@a file"], "put k \"@a file\""),
        (&["scan", "a", "--limit", "3", "--keys"], "scan a --limit 3 --keys"),
        (&["search", "k"], "search k"),
        (&["show-all", "n1"], "show-all n1"),
        (&["wait", "5"], "wait 5"),
    ] {
        assert_eq!(command(words), means);
        let line = parse(&[&["status:4400"], words].concat()).unwrap();
        assert_eq!(
            line.address.unwrap().0,
            ["status:4400"],
            "a host may have the name of a command"
        );
        assert_eq!(line.subcommand.unwrap().command().unwrap().unwrap().to_string(), means);
    }
    let line = parse(&["put", "a", "b", "c"]).unwrap();
    let error = line.subcommand.unwrap().command().unwrap_err().to_string();
    assert!(error.contains("unexpected argument \"c\"; write put KEY VALUE"), "{error}");
    let mut nodes = parse(&["nodes", "status"]).unwrap().subcommand.unwrap();
    assert_eq!(nodes.then(), ["status"]);
}

#[test]
fn options_may_appear_anywhere() {
    for line in [
        &["--level", "eventual", "a:1", "R,k"][..],
        &["a:1", "--level", "eventual", "R,k"],
        &["a:1", "R,k", "--level", "eventual"],
    ] {
        let cli = parse(line).unwrap();
        assert_eq!(cli.connect.level, Some(Level::Eventual));
        assert_eq!(cli.commands, ["R,k"]);
    }
    let cli = parse(&["--timeout", "3s", "a:1", "status", "--json"]).unwrap();
    let Some(Subcommand::Status { json: true, connect, .. }) = cli.subcommand else { panic!() };
    assert_eq!(connect.or(cli.connect).timeout, Some(Duration::from_secs(3)));
}

#[test]
fn several_addresses_are_accepted() {
    let Addresses(list) = parse(&["a,b:4401,[::1]:4402,::1", "R,k"]).unwrap().address.unwrap();
    assert_eq!(list, ["a", "b:4401", "[::1]:4402", "::1"]);
}

#[test]
fn a_wrong_address_says_what_to_write() {
    assert!(wrong(&["a:port"]).contains("the port must be a number from 1 to 65535"));
    assert!(wrong(&["a:99999"]).contains("the port must be a number from 1 to 65535"));
    assert!(wrong(&["a:0"]).contains("the port must be a number from 1 to 65535"));
    assert!(wrong(&["a,,b"]).contains("is neither a command nor an address"));
    let mistyped = wrong(&["statsu"]);
    assert!(mistyped.contains("there is no command statsu"), "{mistyped}");
    assert!(mistyped.contains("did you mean status") && mistyped.contains("statsu:4400"));
    assert!(wrong(&["drian", "n1"]).contains("did you mean drain?"));
    assert!(wrong(&["set", "k", "v"]).contains("did you mean put KEY VALUE"));
}

#[test]
fn subcommands_parse_their_arguments() {
    let word = |line: &[&str]| parse(line).unwrap().subcommand.unwrap();
    assert!(matches!(word(&["a", "status"]), Subcommand::Status { json: false, .. }));
    let Subcommand::Load(load) = word(&["a", "load", "f.csv", "--verify", "--in-flight", "8"])
    else {
        panic!()
    };
    assert!(load.verify && load.transfer.in_flight == 8 && load.transfer.format.is_none());
    let Subcommand::Local(local) = word(&["local", "--nodes", "5", "--", "W,a,1", "kill n1"])
    else {
        panic!()
    };
    assert_eq!((local.nodes, local.commands.len()), (Some(5), 2));
    let Subcommand::Token(token) =
        word(&["a", "token", "create", "--role", "admin", "--life", "1h"])
    else {
        panic!()
    };
    let TokenAction::Create { role: Role::Admin, life: Some(life), uses: None, .. } = token.action
    else {
        panic!()
    };
    assert_eq!(life, Duration::from_secs(3600));
    assert!(
        wrong(&["a", "token", "create", "--role", "gateway"])
            .contains("node, client, reader, admin or server")
    );
    assert!(wrong(&["a", "load"]).contains("<FILE>"));
    let Subcommand::Import(import) = word(&["a", "import", "etcd", "http://h:1", "--continue"])
    else {
        panic!()
    };
    assert!(import.file.is_none() && import.of_etcd().is_some_and(|etcd| etcd.go_on));
    let Subcommand::Import(import) = word(&["a", "import", "./etcd"]) else { panic!() };
    assert!(import.file.is_some() && import.of_etcd().is_none());
    assert!(wrong(&["a", "import"]).contains("<FILE|URL>"));
    assert!(wrong(&["a", "import", "etcd"]).contains("<SOURCE>"));
    assert!(wrong(&["a", "import", "etcd", "x", "--cert", "c"]).contains("--key"));
    assert!(wrong(&["local", "--nodes", "0"]).contains("from 1 to 256"));
}

#[test]
fn every_level_has_help() {
    let help = wrong(&["--help"]);
    assert!(help.contains("dkv [OPTIONS] [ADDRESS] [COMMAND]..."), "{help}");
    assert!(help.contains("W,<key>,<value>") && help.contains("Exit status"), "{help}");
    assert!(wrong(&["local", "--help"]).contains("removed at the end"));
    let help = wrong(&["127.0.0.1:4400", "status", "--help"]);
    assert!(help.contains("dkv [ADDRESS] status [OPTIONS]") && help.contains("--json"), "{help}");
    assert!(wrong(&["--version"]).starts_with("dkv 0."));
}

#[test]
fn a_shell_completes_every_help_topic() {
    use clap::builder::TypedValueParser;
    let words = TOPICS.possible_values().unwrap();
    let words: Vec<String> = words.map(|word| word.get_name().to_owned()).collect();
    for command in Cli::command().get_subcommands() {
        assert!(words.iter().any(|word| word == command.get_name()), "{}", command.get_name());
    }
}

#[test]
fn an_address_before_a_command_that_takes_none_is_named() {
    for alone in ["node", "completions"] {
        let said = wrong(&["127.0.0.1:4400", alone]);
        assert!(
            said.contains(&format!("{alone} takes no address before it; omit \"127.0.0.1:4400\"")),
            "{said}"
        );
    }
    assert!(parse(&["help", "node"]).is_ok());
}
