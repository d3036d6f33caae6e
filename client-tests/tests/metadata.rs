//! What the server says about itself, compared with a Redis that is newer than Debian's, as far as
//! Redis 7.4 has it: COMMAND and the fields of INFO.

use anyhow::{Context, Result, bail, ensure};
use client_tests::peer::Peer;
use client_tests::server::Server;
use client_tests::wire::RawConnection;
use client_tests::{TestResult, skip};
use redis::Value;
use serde_json::{Map, Value as Json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Parts of COMMAND DOCS that may differ: command, part, and why.
const DOCS_DIFFERENCES: &[(&str, &str, &str)] = &[
    ("bgsave", "arguments", "CANCEL is an extension"),
    ("bitop", "arguments", "Redis 8 has more operations"),
    ("debug", "arguments", "Redis describes none, and its subcommands differ"),
    ("xadd", "arguments", "Redis 8 chooses what becomes of references in groups"),
    ("xtrim", "arguments", "Redis 8 chooses what becomes of references in groups"),
];

/// Texts of COMMAND DOCS that are prose: Cowherd's are its own, or missing.
const PROSE: &[&str] = &["summary", "complexity", "history"];

/// Fields of INFO that Redis has since version 8.
const NEWER_FIELDS: &[&str] = &[
    "used_memory_peak_time",
    "mem_replica_full_sync_buffer",
    "io_threaded_total_prefetch_batches",
    "io_threaded_total_prefetch_entries",
];

/// Fields of INFO that stand only in one of the two.
const OTHER_FIELDS: &[(&str, &str)] =
    &[("module", "Redis comes with one"), ("listener0", "only with a TCP port")];

/// Both servers, through connections that use RESP3.
struct Pair {
    redis: RawConnection,
    cowherd: RawConnection,
    _servers: (Peer, Server),
}

impl Pair {
    fn start() -> Result<Option<Self>> {
        let Some(peer) = Peer::start_newer()? else { return Ok(None) };
        let server = Server::start()?;
        let (mut redis, mut cowherd) = (peer.raw()?, server.raw()?);
        redis.call(&["HELLO", "3"])?;
        cowherd.call(&["HELLO", "3"])?;
        Ok(Some(Self { redis, cowherd, _servers: (peer, server) }))
    }

    fn both(&mut self, arguments: &[&str]) -> Result<[Json; 2]> {
        let redis = json(self.redis.call(arguments).context("redis-server")?)?;
        Ok([redis, json(self.cowherd.call(arguments).context("cowherd")?)?])
    }
}

/// A reply as JSON: sets are sorted, keys of maps are texts.
fn json(value: Value) -> Result<Json> {
    let list = |values: Vec<Value>| values.into_iter().map(json).collect::<Result<Vec<Json>>>();
    Ok(match value {
        Value::Nil => Json::Null,
        Value::Okay => "OK".into(),
        Value::Int(number) => number.into(),
        Value::BulkString(bytes) => String::from_utf8(bytes)?.into(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.into(),
        Value::Array(values) => Json::Array(list(values)?),
        Value::Set(values) => {
            let mut items = list(values)?;
            items.sort_by_key(Json::to_string);
            Json::Array(items)
        }
        Value::Map(pairs) => {
            let pairs =
                pairs.into_iter().map(|(key, value)| Ok((word(&json(key)?)?, json(value)?)));
            Json::Object(pairs.collect::<Result<Map<String, Json>>>()?)
        }
        other => bail!("unexpected in a reply: {other:?}"),
    })
}

fn word(value: &Json) -> Result<String> {
    Ok(value.as_str().with_context(|| format!("no text: {value}"))?.to_owned())
}

fn items(value: &Json) -> Result<&Vec<Json>> {
    value.as_array().with_context(|| format!("no list: {value}"))
}

/// The names of the elements of a COMMAND INFO entry, without name and subcommands.
const ENTRY: [&str; 8] =
    ["arity", "flags", "first key", "last key", "step", "categories", "tips", "key specs"];

/// COMMAND's entries of all commands and subcommands by name.
fn entries(command: &Json) -> Result<BTreeMap<String, Vec<Json>>> {
    let mut all = BTreeMap::new();
    for entry in items(command)? {
        let fields = items(entry)?;
        ensure!(fields.len() == 10, "{entry}");
        all.append(&mut entries(&fields[9])?);
        all.insert(word(&fields[0])?, fields[1..9].to_vec());
    }
    Ok(all)
}

/// Removes the notes of key specs, which are prose.
fn without_notes(mut specs: Json) -> Result<Json> {
    for spec in specs.as_array_mut().context("no key specs")? {
        spec.as_object_mut().context("no key spec")?.remove("notes");
    }
    specs.as_array_mut().context("no key specs")?.sort_by_key(Json::to_string);
    Ok(specs)
}

#[test]
fn commands_are_described_as_in_redis() -> TestResult {
    let Some(mut pair) = Pair::start()? else { skip!("there is no newer redis-server") };
    let [redis, cowherd] = pair.both(&["COMMAND"])?;
    let (mut redis, cowherd) = (entries(&redis)?, entries(&cowherd)?);
    ensure!(cowherd.len() >= 300, "only {} commands", cowherd.len());
    let mut differences = String::new();
    for (name, mut own) in cowherd {
        let Some(mut other) = redis.remove(&name) else {
            writeln!(differences, "{name}: Redis has no such command")?;
            continue;
        };
        for entry in [&mut own, &mut other] {
            entry[7] = without_notes(entry[7].take())?;
        }
        for ((part, own), other) in ENTRY.iter().zip(own).zip(other) {
            if own != other {
                writeln!(differences, "{name}, {part}:\n  redis   {other}\n  cowherd {own}")?;
            }
        }
    }
    ensure!(differences.is_empty(), "{differences}");
    Ok(())
}

#[test]
fn categories_have_the_commands_that_they_have_in_redis() -> TestResult {
    let Some(mut pair) = Pair::start()? else { skip!("there is no newer redis-server") };
    let [redis, cowherd] = pair.both(&["COMMAND", "LIST"])?;
    let own: BTreeSet<String> = items(&cowherd)?.iter().map(word).collect::<Result<_>>()?;
    ensure!(items(&redis)?.len() > own.len());
    let categories = json(pair.redis.call(&["ACL", "CAT"])?)?;
    for category in items(&categories)? {
        let category = word(category)?;
        let [redis, cowherd] = pair.both(&["COMMAND", "LIST", "FILTERBY", "ACLCAT", &category])?;
        let names = |list: &Json| -> Result<BTreeSet<String>> {
            let names = items(list)?.iter().map(word).collect::<Result<BTreeSet<_>>>()?;
            Ok(names.intersection(&own).cloned().collect())
        };
        let (redis, cowherd) = (names(&redis)?, names(&cowherd)?);
        let odd: Vec<_> = redis.symmetric_difference(&cowherd).collect();
        ensure!(odd.is_empty(), "@{category} differs in {odd:?}");
    }
    Ok(())
}

/// COMMAND DOCS of all commands and subcommands by name.
fn docs(reply: &Json) -> Result<BTreeMap<String, Map<String, Json>>> {
    let mut all = BTreeMap::new();
    for (name, parts) in reply.as_object().context("no map")? {
        let mut parts = parts.as_object().context("no map of parts")?.clone();
        if let Some(subcommands) = parts.remove("subcommands") {
            all.append(&mut docs(&subcommands)?);
        }
        all.insert(name.clone(), parts);
    }
    Ok(all)
}

/// The words in backticks that a replacement consists of.
fn replacement(text: &Json) -> Result<BTreeSet<String>> {
    let words = word(text)?.replace('!', "");
    Ok(words.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

#[test]
fn commands_have_the_facts_of_the_docs_of_redis() -> TestResult {
    let Some(mut pair) = Pair::start()? else { skip!("there is no newer redis-server") };
    let [redis, cowherd] = pair.both(&["COMMAND", "DOCS"])?;
    let (mut redis, cowherd) = (docs(&redis)?, docs(&cowherd)?);
    let (mut differences, mut allowed) = (String::new(), BTreeSet::new());
    for (name, mut own) in cowherd {
        let Some(mut other) = redis.remove(&name) else {
            writeln!(differences, "{name}: Redis has no such command")?;
            continue;
        };
        ensure!(own.contains_key("summary"), "{name} has no summary");
        PROSE.iter().for_each(|part| drop((own.remove(*part), other.remove(*part))));
        let (one, two) = (own.remove("replaced_by"), other.remove("replaced_by"));
        ensure!(one.is_some() == two.is_some(), "{name}: {one:?} and {two:?}");
        if let (Some(one), Some(two)) = (one, two) {
            ensure!(replacement(&one)? == replacement(&two)?, "{name}: {one} and {two}");
        }
        let parts: BTreeSet<String> = own.keys().chain(other.keys()).cloned().collect();
        for part in parts {
            let (own, other) = (own.get(&part), other.get(&part));
            let is_known = |known: &&(&str, &str, &str)| known.0 == name && known.1 == part;
            match DOCS_DIFFERENCES.iter().find(is_known) {
                _ if own == other => {}
                Some(known) => drop(allowed.insert(known)),
                None => writeln!(
                    differences,
                    "{name}, {part}:\n  redis   {}\n  cowherd {}",
                    other.unwrap_or(&Json::Null),
                    own.unwrap_or(&Json::Null)
                )?,
            }
        }
    }
    ensure!(differences.is_empty(), "{differences}");
    for known in DOCS_DIFFERENCES {
        ensure!(allowed.contains(known), "there is no difference any more: {known:?}");
    }
    Ok(())
}

/// The fields of INFO by section, in their order.
fn info_fields(raw: &mut RawConnection) -> Result<Vec<(String, Vec<String>)>> {
    let text = raw.text(&["INFO", "everything"])?;
    let mut sections: Vec<(String, Vec<String>)> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("# ") {
            Some(section) => sections.push((section.to_owned(), Vec::new())),
            None => {
                let field = line.split(':').next().unwrap_or_default().to_owned();
                let section = sections.last_mut().context("a field before the first section")?;
                section.1.push(field);
            }
        }
    }
    Ok(sections)
}

/// The INFO sections with fields that earlier commands of clients add.
const OF_USE: &[&str] = &["Commandstats", "Errorstats", "Latencystats", "Threads", "Keysizes"];

#[test]
fn info_has_the_fields_of_redis_in_its_order() -> TestResult {
    let Some(mut pair) = Pair::start()? else { skip!("there is no newer redis-server") };
    pair.both(&["SET", "key", "value"])?;
    let redis = info_fields(&mut pair.redis)?;
    let cowherd: BTreeMap<_, _> = info_fields(&mut pair.cowherd)?.into_iter().collect();
    for (section, fields) in redis {
        if OF_USE.contains(&section.as_str()) {
            continue;
        }
        let is_compared = |field: &String| {
            !field.starts_with("cowherd_")
                && !NEWER_FIELDS.contains(&field.as_str())
                && !OTHER_FIELDS.iter().any(|(other, _)| other == field)
        };
        let redis: Vec<_> = fields.into_iter().filter(is_compared).collect();
        let cowherd = cowherd.get(&section).with_context(|| format!("no section {section}"))?;
        let cowherd: Vec<_> = cowherd.iter().filter(|field| is_compared(field)).cloned().collect();
        ensure!(redis == cowherd, "in {section}:\n  redis   {redis:?}\n  cowherd {cowherd:?}");
    }
    let [redis, cowherd] = pair.both(&["INFO", "keyspace"])?;
    let names = |text: &Json| -> Result<Vec<String>> {
        let text = word(text)?;
        let line = text.lines().find(|line| line.starts_with("db0:")).context("no db0")?;
        Ok(line.split(',').filter_map(|one| one.split('=').next()).map(str::to_owned).collect())
    };
    ensure!(names(&redis)? == names(&cowherd)?, "{redis}\n{cowherd}");
    Ok(())
}
