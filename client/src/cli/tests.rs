//! Command lines, right and wrong.

use clap::CommandFactory;

use dkv_api::Role;

use super::*;

fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(["dkv"].iter().chain(line))
}

fn commands(line: &[&str]) -> Vec<String> {
    let cli = parse(line).unwrap();
    assert!(cli.word.is_none());
    cli.commands.into_iter().map(|command| command.into_string().unwrap()).collect()
}

fn wrong(line: &[&str]) -> String {
    parse(line).unwrap_err().to_string()
}

#[test]
fn clap_finds_nothing_to_object_to() {
    Cli::command().debug_assert();
}

#[test]
fn commands_follow_the_address() {
    assert_eq!(commands(&["127.0.0.1:4400", "W,a,1", "R,a"]), ["W,a,1", "R,a"]);
    assert_eq!(commands(&["localhost", "W,-1,-2"]), ["W,-1,-2"]);
    assert_eq!(commands(&["localhost", "put", "k", "-1"]), ["put", "k", "-1"]);
    assert_eq!(commands(&["localhost", "--", "put", "k", "--x"]), ["put", "k", "--x"]);
    assert_eq!(commands(&["localhost", "get", "status"]), ["get", "status"]);
    assert_eq!(commands(&["localhost", "get", "local"]), ["get", "local"]);
    assert_eq!(commands(&["localhost"]), [""; 0]);
}

#[test]
fn options_may_stand_anywhere() {
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
    let Some(Word::Status { json: true, connect }) = cli.word else { panic!() };
    assert_eq!(connect.or(cli.connect).timeout, Some(Duration::from_secs(3)));
}

#[test]
fn addresses_may_be_several() {
    let Addresses(list) = parse(&["a,b:4401,[::1]:4402,::1", "R,k"]).unwrap().address.unwrap();
    assert_eq!(list, ["a", "b:4401", "[::1]:4402", "::1"]);
}

#[test]
fn a_wrong_address_says_what_to_write() {
    assert!(wrong(&["R,key"]).contains("dkv 127.0.0.1:4400 R,key"));
    assert!(wrong(&["w,key,1"]).contains("comes before it"));
    assert!(wrong(&["a:port"]).contains("no port from 0 to 65535"));
    assert!(wrong(&["a:99999"]).contains("no port from 0 to 65535"));
    assert!(wrong(&["a,,b"]).contains("is neither an address nor a word"));
    assert!(wrong(&["a b"]).contains("is neither an address nor a word"));
}

#[test]
fn words_have_their_arguments() {
    let word = |line: &[&str]| parse(line).unwrap().word.unwrap();
    assert!(matches!(word(&["a", "status"]), Word::Status { json: false, .. }));
    let Word::Load(load) = word(&["a", "load", "f.csv", "--verify", "--in-flight", "8"]) else {
        panic!()
    };
    assert!(load.verify && load.transfer.in_flight == 8 && load.transfer.format.is_none());
    let Word::Local(local) = word(&["local", "--nodes", "5", "--", "W,a,1", "kill n1"]) else {
        panic!()
    };
    assert_eq!((local.nodes, local.commands.len()), (Some(5), 2));
    let Word::Token(token) = word(&["a", "token", "create", "--role", "admin", "--life", "1h"])
    else {
        panic!()
    };
    let TokenAction::Create { role: Role::Admin, life: Some(life), uses: None, .. } = token.action
    else {
        panic!()
    };
    assert_eq!(life, Duration::from_secs(3600));
    assert!(
        wrong(&["a", "token", "create", "--role", "server"])
            .contains("node, client, reader or admin")
    );
    assert!(wrong(&["a", "load"]).contains("<FILE>"));
    assert!(wrong(&["local", "--nodes", "0"]).contains("1..=256"));
}

#[test]
fn help_is_good_at_every_level() {
    let help = wrong(&["--help"]);
    assert!(help.contains("dkv [OPTIONS] <ADDRESS> [COMMAND]..."), "{help}");
    assert!(help.contains("W,<key>,<value>") && help.contains("Exit status"), "{help}");
    assert!(wrong(&["local", "--help"]).contains("removed at the end"));
    let help = wrong(&["127.0.0.1:4400", "status", "--help"]);
    assert!(help.contains("dkv <ADDRESS> status [OPTIONS]") && help.contains("--json"), "{help}");
    assert!(wrong(&["--version"]).starts_with("dkv 0."));
}
