//! Carries out `policy`, `whoami` and `can`.

use std::os::unix::ffi::OsStrExt;

use dkv_api::{
    Bytes, Client, Error, NetworkView, PolicyInfo, PolicyLimits, PolicyList, PolicyRule, RightSet,
};
use dkv_console::Console;
use dkv_console::problem::{Abort, Failure, Problem};
use dkv_console::quote::escaped;
use dkv_console::table::aligned;
use dkv_gateway::bytes_json::{Encoding, put};
use dkv_wire::message::{Keys, allows};
use serde_json::{Map, Value, json};

use crate::api_problems::request_problem;
use crate::cli::{CanArgs, PolicyAction, RuleKeys};

/// Where a change is in force once the command has succeeded.
const EVERYWHERE: &str = "this is in force at every node";

/// Carries out a subcommand of `policy`.
pub(crate) async fn run(
    action: &PolicyAction,
    client: &Client,
    console: &mut Console,
) -> Result<(), Abort> {
    let changed = match action {
        PolicyAction::List { .. } => return list(client, console).await,
        PolicyAction::Show { name, .. } => return show(name, client, console).await,
        PolicyAction::Create { name, rights, keys, .. } => {
            if rights.is_none() && (keys.prefix.is_some() || keys.all_keyspaces) {
                let why = "a rule also needs --rights, such as --rights read,watch";
                return Err(Problem::usage(why).into());
            }
            let rules = rights.map(|rights| rule(rights, keys, client)).into_iter().collect();
            let done = client.create_policy(name, rules).await;
            (name, ["create", "created"], done, format!("grant it with policy grant {name} USER"))
        }
        PolicyAction::Set { name, rights, keys, .. } => {
            let done = client.set_policy(name, rule(*rights, keys, client)).await;
            (name, ["set", "changed"], done, EVERYWHERE.into())
        }
        PolicyAction::Drop { name, .. } => {
            let done = client.drop_policy(name).await;
            (name, ["drop", "dropped"], done, format!("its users lose it; {EVERYWHERE}"))
        }
        PolicyAction::Limit { name, requests, bytes, connections, .. } => {
            let (requests, bytes, connections) = (*requests, *bytes, *connections);
            let limits = PolicyLimits { requests, bytes, connections };
            let done = client.limit_policy(name, limits).await;
            (name, ["limit", "limited"], done, format!("limits of each user: {limits}"))
        }
        PolicyAction::Grant { name, user, .. } => {
            let done = client.grant_policy(name, *user).await;
            (name, ["grant", "granted"], done, format!("{user} has it; {EVERYWHERE}"))
        }
        PolicyAction::Revoke { name, user, .. } => {
            let done = client.revoke_policy(name, *user).await;
            (name, ["revoke", "revoked"], done, format!("{user} loses it; {EVERYWHERE}"))
        }
    };
    let (name, [verb, what], done, then) = changed;
    done.map_err(|error| change_problem(name, what, &error))?;
    console.changed(
        &format!("policy {name} was {what}; {then}"),
        || json!({ "command": format!("policy {verb}"), "name": name }),
    )?;
    Ok(())
}

/// Shows who this client is, and what limits it.
pub(crate) async fn whoami(client: &Client, console: &mut Console) -> Result<(), Abort> {
    let identity = client.identity();
    let (known, view) = known(client).await?;
    let own: Vec<&PolicyInfo> = match known.user {
        Some(user) => known.policies.iter().filter(|it| it.users.contains(&user)).collect(),
        None => Vec::new(),
    };
    let mut lines = vec![
        format!("role     {}", identity.role),
        format!("holder   {}", identity.holder),
        format!("network  {}", identity.network),
    ];
    match known.user {
        None => lines.push(format!("user     none: it may do what a {} may", identity.role)),
        Some(user) => {
            lines.push(format!("user     {user}"));
            if own.is_empty() {
                lines.push("policies none: it may not read, write or watch any key".into());
            } else {
                lines.push(table(&own, &view));
                lines.extend(limits_line(&own));
            }
        }
    }
    console.result(&lines.join("\n"), || {
        json!({
            "command": "whoami",
            "role": identity.role.as_str(),
            "holder": identity.holder.to_string(),
            "network": identity.network.to_string(),
            "user": known.user.map(|user| user.to_string()),
            "policies": own.iter().map(|policy| object(policy, &view)).collect::<Vec<_>>(),
            "limits": limits_object(least(&own)),
        })
    })?;
    Ok(())
}

/// Says whether a user may do something with a key; the exit status says it too.
pub(crate) async fn can(
    args: &CanArgs,
    client: &Client,
    console: &mut Console,
) -> Result<(), Abort> {
    let CanArgs { user, right, key, prefix, .. } = args;
    let known = client.policies().await.map_err(|error| request_problem(&error))?;
    let granted = known.policies.iter().filter(|policy| policy.users.contains(user));
    let key = key.as_bytes();
    let keys = if *prefix { Keys::Prefix(key) } else { Keys::Key(key) };
    let keyspace = client.keyspace_id();
    let (mut rules, mut by) = (Vec::new(), Vec::new());
    for policy in granted {
        if allows(&policy.rules, *right, keyspace, keys) {
            by.push(policy.name.clone());
        }
        rules.extend(policy.rules.iter().cloned());
    }
    let may = allows(&rules, *right, keyspace, keys);
    let shown = escaped(key);
    let what =
        if *prefix { format!("all keys with prefix {shown}") } else { format!("key {shown}") };
    let name = client.keyspace_name();
    let text = match (may, by.as_slice()) {
        (false, _) => format!("no: {user} may not {right} {what} in keyspace {name}"),
        (true, []) => format!("yes: {user} may, by several policies together"),
        (true, by) => format!("yes: {user} may, by policy {}", by.join(", ")),
    };
    console.result(&text, || {
        let mut asked = Map::new();
        asked.insert("command".into(), "can".into());
        asked.insert("user".into(), user.to_string().into());
        asked.insert("right".into(), right.as_str().into());
        asked.insert("keyspace".into(), name.into());
        put(&mut asked, "key", key, Encoding::Text);
        asked.insert("prefix".into(), (*prefix).into());
        asked.insert("may".into(), may.into());
        asked.insert("policies".into(), by.into());
        Value::Object(asked)
    })?;
    if may { Ok(()) } else { Err(Abort::Reported(Failure::Denied)) }
}

/// Returns the policies that this client may see, and the view, which names the keyspaces.
async fn known(client: &Client) -> Result<(PolicyList, NetworkView), Abort> {
    let known = client.policies().await.map_err(|error| request_problem(&error))?;
    let view = client.view().await.map_err(|error| request_problem(&error))?;
    Ok((known, view))
}

async fn list(client: &Client, console: &mut Console) -> Result<(), Abort> {
    let (known, view) = known(client).await?;
    let all: Vec<&PolicyInfo> = known.policies.iter().collect();
    let text = if all.is_empty() {
        "there are no policies: holders without a user have the rights of their roles".into()
    } else {
        table(&all, &view)
    };
    console.result(&text, || {
        let all: Vec<Value> = all.iter().map(|policy| object(policy, &view)).collect();
        json!({ "command": "policy list", "policies": all })
    })?;
    Ok(())
}

async fn show(name: &str, client: &Client, console: &mut Console) -> Result<(), Abort> {
    let (known, view) = known(client).await?;
    let Some(policy) = known.policies.iter().find(|policy| policy.name == name) else {
        let why = format!("there is no policy {}; policy list shows all", name.escape_debug());
        return Err(Problem::new(Failure::NotFound, why).into());
    };
    let users: Vec<String> = policy.users.iter().map(ToString::to_string).collect();
    let users = if users.is_empty() { "nobody".to_owned() } else { users.join(", ") };
    let mut text = format!("{}\ngranted to {users}", table(&[policy], &view));
    if let Some(limits) = limits_line(&[policy]) {
        text = format!("{text}\n{limits}");
    }
    console.result(&text, || {
        let mut shown = object(policy, &view);
        shown["command"] = "policy show".into();
        shown
    })?;
    Ok(())
}

/// The rule about keys of the client's keyspace, or of all.
fn rule(rights: RightSet, keys: &RuleKeys, client: &Client) -> PolicyRule {
    let prefix = keys.prefix.as_ref().map(|prefix| Bytes::copy_from_slice(prefix.as_bytes()));
    PolicyRule {
        keyspace: (!keys.all_keyspaces).then(|| client.keyspace_id()),
        prefix: prefix.unwrap_or_default(),
        rights,
    }
}

fn table(policies: &[&PolicyInfo], view: &NetworkView) -> String {
    let mut rows = vec![["POLICY", "RIGHTS", "KEYSPACE", "KEYS", "USERS"].map(str::to_owned)];
    for policy in policies {
        let users = policy.users.len().to_string();
        if policy.rules.is_empty() {
            rows.push([policy.name.clone(), "none".into(), "-".into(), "-".into(), users.clone()]);
        }
        for rule in &policy.rules {
            let keys = match &rule.prefix[..] {
                [] => "all".into(),
                prefix => format!("{}*", escaped(prefix)),
            };
            let keyspace = keyspace_name(rule, view).unwrap_or_else(|| "all".into());
            let rights = rule.rights.to_string();
            rows.push([policy.name.clone(), rights, keyspace, keys, users.clone()]);
        }
    }
    aligned(&rows)
}

fn object(policy: &PolicyInfo, view: &NetworkView) -> Value {
    let rules = policy.rules.iter().map(|rule| {
        let mut object = Map::new();
        object.insert("keyspace".into(), keyspace_name(rule, view).into());
        put(&mut object, "prefix", &rule.prefix, Encoding::Text);
        let rights: Vec<&str> = rule.rights.iter().map(|right| right.as_str()).collect();
        object.insert("rights".into(), rights.into());
        Value::Object(object)
    });
    json!({
        "name": policy.name,
        "rules": rules.collect::<Vec<_>>(),
        "users": policy.users.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "limits": limits_object(policy.limits),
    })
}

/// The limits that follow from several policies.
fn least(policies: &[&PolicyInfo]) -> PolicyLimits {
    policies.iter().fold(PolicyLimits::default(), |least, policy| least.least(policy.limits))
}

/// What policies limit a user to at each node, if they do.
fn limits_line(policies: &[&PolicyInfo]) -> Option<String> {
    let limits = least(policies);
    (!limits.is_none()).then(|| format!("limits   {limits}, at each node"))
}

fn limits_object(limits: PolicyLimits) -> Value {
    let PolicyLimits { requests, bytes, connections } = limits;
    json!({ "requests_per_s": requests, "bytes_per_s": bytes, "connections": connections })
}

/// The name of a rule's keyspace; `None` for all of them.
fn keyspace_name(rule: &PolicyRule, view: &NetworkView) -> Option<String> {
    let id = rule.keyspace?;
    let known = view.keyspace(id).map(|keyspace| keyspace.name.clone());
    Some(known.unwrap_or_else(|| format!("number {id}")))
}

/// Explains a failed change of a policy; `done` is what did not happen.
fn change_problem(name: &str, done: &str, error: &Error) -> Problem {
    let name = name.escape_debug();
    match error {
        Error::Unknown(why) => Problem::new(
            Failure::Unknown,
            format!("policy {name} may have been {done}: {why}; see policy show {name}"),
        ),
        Error::NotEverywhere { missing } => Problem::new(
            Failure::Incomplete,
            format!(
                "policy {name}: {error} (it was {done}): {}",
                "what a user asks there is judged by the old rules for a minute at most"
            ),
        )
        .with("missing", missing.clone()),
        Error::Invalid(why) => Problem::failed(format!("policy {name} was not {done}: {why}")),
        other => request_problem(other),
    }
}
