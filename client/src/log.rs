//! Shows and changes what the processes of a network log: `log [NODE|server|all] [LEVEL]`.

use std::time::Duration;

use dkv_api::{Client, Error, LogChange, LogFilter, NodeInfo};
use dkv_base::logging::level;
use dkv_console::Console;
use dkv_console::problem::{Abort, Problem, worst};
use dkv_console::table::aligned;
use dkv_console::units;
use dkv_wire::limits::LOG_FILTER_LIFE_MAX;
use serde_json::json;

use crate::admin::find;
use crate::api_problems::request_problem;
use crate::cli::LogArgs;

/// The processes that are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    All,
    Server,
    Node(String),
}

/// A process that answered, or why it did not.
type Told = (String, Result<LogFilter, Error>);

/// Returns the processes that the operands name, and the filter.
///
/// # Errors
/// The filter is misspelt, or a time is given without one.
fn operands(args: &LogArgs) -> Result<(Target, Option<String>), Problem> {
    let target = |word: &str| match word {
        "all" => Target::All,
        "server" => Target::Server,
        node => Target::Node(node.to_owned()),
    };
    let (target, filter) = match (&args.target, &args.filter) {
        (None, _) => (Target::All, None),
        (Some(word), Some(filter)) => (target(word), Some(filter.clone())),
        (Some(word), None) if level::check(word).is_ok() => (Target::All, Some(word.clone())),
        (Some(word), None) => (target(word), None),
    };
    match &filter {
        Some(filter) => level::check(filter).map_err(|error| Problem::usage(error.to_string()))?,
        None if args.life.is_some() => {
            return Err(Problem::usage("--for needs a level; give one before it"));
        }
        None => {}
    }
    if args.life.is_some_and(|life| life > LOG_FILTER_LIFE_MAX) {
        return Err(Problem::usage("--for must be at most one day"));
    }
    Ok((target, filter))
}

/// Shows what processes log, after a change if there is one.
pub(crate) async fn run(
    args: &LogArgs,
    client: &Client,
    console: &mut Console,
) -> Result<(), Abort> {
    let (target, filter) = operands(args)?;
    let for_ms = args.life.map(|life| life.as_millis() as u64);
    let changes = filter.is_some();
    let change = filter.map(|filter| LogChange { filter, for_ms });
    let nodes: Vec<NodeInfo> = match &target {
        Target::Server => Vec::new(),
        Target::All | Target::Node(_) => {
            let view = client.refresh().await.map_err(|error| request_problem(&error))?;
            match &target {
                Target::Node(name) => vec![find(name, &view.nodes)?.clone()],
                _ => view.nodes,
            }
        }
    };
    let of_nodes = nodes.into_iter().map(async |node| {
        let told = client.node_log(node.id, change.clone()).await;
        (node.name, told)
    });
    let of_nodes = futures::future::join_all(of_nodes);
    let of_server = async {
        match target {
            Target::Node(_) => None,
            _ => Some(("server".to_owned(), client.server_log(change.clone()).await)),
        }
    };
    let (mut told, server) = tokio::join!(of_nodes, of_server);
    told.sort_by_key(|(name, _)| (name.len(), name.clone()));
    told.extend(server);
    let document = || {
        let processes = told.iter().map(|(name, told)| match told {
            Ok(LogFilter { filter, then }) => json!({
                "name": name,
                "filter": filter,
                "then": then.as_ref().map(|(filter, _)| filter),
                "then_in_ms": then.as_ref().map(|(_, left)| left),
            }),
            Err(error) => json!({ "name": name, "error": error.to_string() }),
        });
        json!({ "command": "log", "processes": processes.collect::<Vec<_>>() })
    };
    match changes {
        true => console.changed(&table(&told), document)?,
        false => console.result(&table(&told), document)?,
    }
    let problems: Vec<Problem> = problems(&told).collect();
    problems.iter().for_each(|problem| console.problem(problem));
    let failure = problems.iter().fold(None, |one, it| worst(one, Some(it.failure)));
    failure.map_or(Ok(()), |failure| Err(Abort::Reported(failure)))
}

fn table(told: &[Told]) -> String {
    let mut rows = vec![["PROCESS", "LOGS", "THEN"].map(str::to_owned)];
    rows.extend(told.iter().map(|(name, told)| match told {
        Ok(LogFilter { filter, then }) => {
            let then = then.as_ref().map(|(filter, left)| {
                let left = units::duration(Duration::from_millis(*left));
                format!("{filter} in {left}")
            });
            [name.clone(), filter.clone(), then.unwrap_or_default()]
        }
        Err(error) => [name.clone(), format!("no answer: {error}"), String::new()],
    }));
    aligned(&rows)
}

/// Returns the problem of each process that did not do what was asked.
fn problems(told: &[Told]) -> impl Iterator<Item = Problem> {
    told.iter().filter_map(|(name, told)| {
        let problem = request_problem(told.as_ref().err()?);
        Some(problem.prefixed(&format!("{name}: ")).with("process", name.clone()))
    })
}

#[cfg(test)]
mod tests {
    use dkv_console::problem::Failure;

    use super::*;

    fn args(target: Option<&str>, level: Option<&str>, life: Option<u64>) -> LogArgs {
        LogArgs {
            target: target.map(str::to_owned),
            filter: level.map(str::to_owned),
            life: life.map(Duration::from_secs),
            connect: crate::cli::Connect::default(),
        }
    }

    #[test]
    fn an_unknown_outcome_weighs_more_than_a_refusal() {
        let refused = ("n1".to_owned(), Err(Error::Denied("not an administrator".into())));
        let unknown = ("n2".to_owned(), Err(Error::Unknown("no answer".into())));
        let problems: Vec<Problem> = problems(&[refused, unknown]).collect();
        let failure = problems.iter().fold(None, |one, it| worst(one, Some(it.failure)));
        assert_eq!(failure, Some(Failure::Unknown));
        assert_eq!(problems[1].document()["process"], "n2");
        assert!(problems[0].message.starts_with("n1: denied"), "{problems:?}");
    }

    #[test]
    fn one_operand_is_a_level_if_it_can_be() {
        let read = |target, level| operands(&args(target, level, None)).unwrap();
        assert_eq!(read(None, None), (Target::All, None));
        assert_eq!(read(Some("debug"), None), (Target::All, Some("debug".into())));
        assert_eq!(read(Some("n1"), None), (Target::Node("n1".into()), None));
        assert_eq!(read(Some("server"), Some("info")), (Target::Server, Some("info".into())));
        let filter = "dkv_node=trace,info";
        assert_eq!(read(Some("all"), Some(filter)), (Target::All, Some(filter.into())));
        // A node may have the name of a level.
        assert_eq!(read(Some("debug"), Some("info")).0, Target::Node("debug".into()));
    }

    #[test]
    fn a_misspelt_level_and_a_time_without_one_are_refused() {
        for args in [
            args(Some("n1"), Some("loud"), None),
            args(Some("n1"), None, Some(60)),
            args(Some("debug"), None, Some(100_000)),
        ] {
            assert_eq!(operands(&args).unwrap_err().failure, Failure::Usage, "{args:?}");
        }
    }
}
