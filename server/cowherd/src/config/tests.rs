use std::path::Path;

use proptest::prelude::*;

use super::loader::ConfigLoader;
use super::*;

/// Values that differ from the default, at least one per directive, and odd ones beside them.
const EXAMPLES: &[(&str, &[&str])] = &[
    ("port", &["0", "65535"]),
    ("latency-tracking-info-percentiles", &["", "0 99.999 100", "1e1 0.00001234"]),
    ("shutdown-on-sigterm", &["save", "nosave now", "NOW force", "default force"]),
    ("shutdown-on-sigint", &["nosave", "force now save"]),
    ("shutdown-timeout", &["0", "2147483647"]),
    ("bind", &["", "* -::*", "10.0.0.1", "-fe80::1 127.0.0.2"]),
    ("unixsocket", &["/run/cow herd.sock"]),
    ("unixsocketperm", &["700", "0777", "7"]),
    ("protected-mode", &["no", "YES"]),
    ("tcp-backlog", &["1"]),
    ("tcp-keepalive", &["0", "2147483647"]),
    ("timeout", &["30"]),
    ("maxclients", &["1", "4294967295"]),
    ("requirepass", &["secret", "two words", "\"'\\#\n\u{e4}"]),
    ("threads", &["1", "63", "64"]),
    ("hz", &["1", "500"]),
    ("databases", &["1"]),
    ("maxmemory", &["1gb", "1k", "12345", "50%", "9223372036854775807"]),
    ("maxmemory-policy", &["allkeys-lru", "volatile-ttl"]),
    ("maxmemory-samples", &["10"]),
    ("arena-pages", &["small", "thp", "huge-2mb", "huge-1gb"]),
    ("arena-thp-collapse", &["no"]),
    ("activedefrag", &["no", "yes"]),
    ("active-defrag-ignore-bytes", &["1", "8mb"]),
    ("active-defrag-threshold-lower", &["0", "1000"]),
    ("active-defrag-threshold-upper", &["0", "1000"]),
    ("active-defrag-cycle-min", &["1", "99"]),
    ("active-defrag-cycle-max", &["1", "99"]),
    ("set-max-intset-entries", &["100"]),
    ("set-max-listpack-entries", &["100"]),
    ("lfu-log-factor", &["0", "20"]),
    ("lfu-decay-time", &["0", "5"]),
    ("set-max-listpack-value", &["100"]),
    ("stream-node-max-bytes", &["0", "8kb"]),
    ("stream-node-max-entries", &["0", "1000"]),
    ("proto-max-bulk-len", &["1mb", "1048577", "9223372036854775807"]),
    ("list-max-listpack-size", &["-2", "128", "-5"]),
    ("list-compress-depth", &["0", "1"]),
    ("hash-max-listpack-entries", &["0", "128"]),
    ("hll-sparse-max-bytes", &["0", "4kb"]),
    ("hash-max-listpack-value", &["0", "1024"]),
    ("zset-max-listpack-entries", &["0", "64"]),
    ("zset-max-listpack-value", &["0", "1kb"]),
    ("client-output-buffer-limit", &["normal 1mb 2kb 3", "replica 0 0 0 pubsub 1 2 3"]),
    ("notify-keyspace-events", &["KEA", "Ex", "g$lshzxetd", "nmKg"]),
    ("dir", &["/var/lib/cow herd"]),
    ("dbfilename", &["a b.cow"]),
    ("save", &["", "900 1", "1 0 9223372036854775807 3"]),
    ("stop-writes-on-bgsave-error", &["no"]),
    ("rdbcompression", &["yes"]),
    ("rdbchecksum", &["no"]),
    ("checkpoint-isolation", &["kernel-cow", "undo-log"]),
    ("checkpoint-undo-limit", &["64mb"]),
    ("checkpoint-undo-block", &["1024", "512"]),
    ("loglevel", &["debug", "nothing"]),
    ("log-format", &["json"]),
    ("logfile", &["/var/log/cowherd.log"]),
    ("slowlog-log-slower-than", &["-1", "0"]),
    ("slowlog-max-len", &["0"]),
    ("busy-reply-threshold", &["0"]),
    ("lua-memory-limit", &["0", "64mb"]),
    ("tracking-table-max-keys", &["0", "5"]),
    ("latency-monitor-threshold", &["100"]),
    ("latency-tracking", &["no"]),
    ("metrics-port", &["0"]),
    ("metrics-bind", &["*", "::*", "::1"]),
    ("supervised", &["systemd", "auto"]),
    ("pidfile", &["/run/cowherd.pid"]),
    ("oom-score-adj", &["yes", "relative", "absolute"]),
    ("oom-score-adj-values", &["-2000 0 2000"]),
    ("enable-debug-command", &["yes", "local"]),
    ("rename-command", &["CONFIG \"\"", "FLUSHALL \"a b\" debug x"]),
];

fn directive(name: &str) -> &'static Directive {
    directives().iter().find(|directive| directive.name == name).unwrap()
}

fn apply(config: &mut Config, name: &str, value: &str) -> Result<(), String> {
    let applied = directive(name).apply(config, &[value.to_owned()], true);
    applied.map_err(|reason| reason.into_owned())
}

/// A configuration with some of the examples and some free texts set.
pub(super) fn some_config() -> impl Strategy<Value = Config> {
    let pairs = EXAMPLES.iter().flat_map(|(name, values)| values.iter().map(|v| (*name, *v)));
    let pairs: Vec<_> = pairs.collect();
    let free = (any::<u32>(), any::<String>(), "[^/\0]{1,20}", any::<[u16; 4]>());
    (proptest::sample::subsequence(pairs, 0..40), free).prop_map(|(pairs, free)| {
        let (number, text, name, few) = free;
        let mut config = Config::default();
        for (name, value) in pairs {
            apply(&mut config, name, value).unwrap();
        }
        config.requirepass = Some(text).filter(|text| !text.is_empty());
        let [port, seconds, changes, hard] = few.map(|small| small.to_string());
        // Values out of bounds are refused and leave what was there.
        let _ = apply(&mut config, "maxclients", &number.to_string());
        let _ = apply(&mut config, "dbfilename", &name);
        apply(&mut config, "port", &port).unwrap();
        let _ = apply(&mut config, "save", &format!("{seconds} {changes}"));
        let limit = format!("pubsub {hard}kb {hard} {seconds}");
        apply(&mut config, "client-output-buffer-limit", &limit).unwrap();
        config
    })
}

fn load(text: &str) -> Result<Config, String> {
    load_in(Path::new("/"), text)
}

fn load_in(base: &Path, text: &str) -> Result<Config, String> {
    let mut loader = ConfigLoader::new(base);
    let result = loader.file_text(Path::new("cowherd.conf"), text.as_bytes());
    result.map(|()| loader.finish()).map_err(|error| error.to_string())
}

#[test]
fn each_directive_takes_its_examples_and_shows_what_it_took() {
    for directive in directives() {
        let (_, examples) = EXAMPLES.iter().find(|(name, _)| *name == directive.name).unwrap();
        let mut changed = false;
        for example in *examples {
            let mut config = Config::default();
            apply(&mut config, directive.name, example).unwrap();
            changed |= config != Config::default();
            let mut copy = Config::default();
            apply(&mut copy, directive.name, &directive.show(&config)).unwrap();
            assert_eq!(copy, config, "{} {example}", directive.name);
        }
        assert!(changed, "{} never changed", directive.name);
    }
}

#[test]
fn names_are_unique_and_well_formed() {
    let own = directives().iter().flat_map(Directive::names);
    let mut names: Vec<_> = own.chain(unsupported().iter().map(|it| it.name)).collect();
    let well_formed = |c: char| c.is_ascii_lowercase() || c == '-';
    assert!(names.iter().all(|name| name.chars().all(well_formed)));
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(directives().iter().all(|it| !it.summary.is_empty() && !it.shape().is_empty()));
    assert!(directives().iter().all(|it| !(it.changeable && it.protected)));
}

#[test]
fn get_knows_aliases_and_ignores_case() {
    let config = Config { threads: 3, ..Config::default() };
    assert_eq!(config.get("IO-Threads").as_deref(), Some("3"));
    assert_eq!(config.get("threads").as_deref(), Some("3"));
    assert_eq!(config.get("bind").as_deref(), Some("127.0.0.1 -::1"));
    assert_eq!(config.get("oom-score-adj-values").as_deref(), Some("0 200 800"));
    assert_eq!(config.get("proto-max-bulk-len").as_deref(), Some("536870912"));
    assert_eq!(
        config.get("client-output-buffer-limit").as_deref(),
        Some("normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60")
    );
    assert_eq!(config.get("cluster-enabled").as_deref(), Some("no"));
    assert_eq!(config.get("include"), None);
    assert_eq!(config.get("nothing"), None);
}

#[test]
fn keyspace_events_are_brought_into_order() {
    for (given, shown) in
        [("KEA", "AKE"), ("gKE$lszhxetmd", "AKEm"), ("mEKg", "gKEm"), ("", ""), ("xtE", "xtE")]
    {
        let mut config = Config::default();
        config.set("notify-keyspace-events", given).unwrap();
        assert_eq!(config.notify_keyspace_events, shown);
    }
}

#[test]
fn files_are_read_like_redis_conf() {
    let text = "# comment\n  PORT\t7000 \r\n\n   # another\nrequirepass \"a b\\x41\"\n\
                save 900 1\nsave \"\"\nsave 10 2\nsave '20 3'\n\
                rename-command CONFIG ''\nrename-command config x\nrename-command FLUSHALL y\n\
                client-output-buffer-limit normal 1mb 2 3 pubsub 4 5 6\n\
                client-output-buffer-limit replica 7 8 9\nunixsocketperm 755\nmaxmemory 1k";
    let config = load(text).unwrap();
    assert_eq!(config.port, 7000);
    assert_eq!(config.requirepass.as_deref(), Some("a bA"));
    assert_eq!(config.get("save").unwrap(), "10 2 20 3");
    assert_eq!(config.get("rename-command").unwrap(), "config x FLUSHALL y");
    assert_eq!(
        config.get("client-output-buffer-limit").unwrap(),
        "normal 1048576 2 3 slave 7 8 9 pubsub 4 5 6"
    );
    assert_eq!((config.unixsocketperm, config.maxmemory), (0o755, 1000));
}

#[test]
fn errors_name_file_line_and_remedy() {
    for (text, error) in [
        (
            "port 1\n\nmaxmemroy 1mb",
            "cowherd.conf:3: unknown directive 'maxmemroy'; did you mean 'maxmemory'?",
        ),
        (
            "maxmemory zz",
            "cowherd.conf:1: maxmemory: argument must be a memory value; \
             write it as: maxmemory <bytes, 64mb, 1gb, 50%>",
        ),
        (
            "port 1 # the port",
            "cowherd.conf:1: port: wrong number of arguments (a comment needs a line of its own); \
             write it as: port <0..65535>",
        ),
        (
            "logfile \"a",
            "cowherd.conf:1: unbalanced quotes; close each quote, \
             and put a blank between two values",
        ),
        (
            "databases 17",
            "cowherd.conf:1: databases: argument must be between 1 and 16 inclusive; \
             write it as: databases <1..16>",
        ),
        (
            "checkpoint-isolation undo",
            "cowherd.conf:1: checkpoint-isolation: argument(s) must be one of the following: \
             kernel-cow, undo-log; write it as: checkpoint-isolation kernel-cow|undo-log",
        ),
        (
            "daemonize yes",
            "cowherd.conf:1: daemonize: Cowherd stays in the foreground; set it to no and let \
             systemd run the server, with 'supervised systemd' here and Type=notify in the unit",
        ),
        (
            "dbfilename a/b",
            "cowherd.conf:1: dbfilename: dbfilename can't be a path, just a filename; \
             write it as: dbfilename <file name>",
        ),
    ] {
        assert_eq!(load(text).unwrap_err(), error);
    }
}

#[test]
fn values_out_of_bounds_are_refused() {
    for line in [
        "port 65536",
        "port -1",
        "port",
        "port 1 2",
        "port x",
        "save",
        "bind",
        "save 1",
        "save 1 x",
        "save 0 1",
        "bind localhost",
        "bind --1.2.3.4",
        "unixsocketperm 888",
        "unixsocketperm 1000",
        "unixsocketperm +7",
        "threads 0",
        "threads 65",
        "hz -1",
        "hz 2147483648",
        "proto-max-bulk-len 9223372036854775808",
        "latency-tracking-info-percentiles 101",
        "latency-tracking-info-percentiles nan",
        "shutdown-on-sigterm save nosave",
        "shutdown-on-sigint \"\"",
        "shutdown-timeout -1",
        "proto-max-bulk-len 1kb",
        "proto-max-bulk-len 50%",
        "maxmemory 0%",
        "maxmemory 101%",
        "maxmemory 9223372036854775808",
        "maxmemory \"\"",
        "dir \"\"",
        "dbfilename \"\"",
        "dbfilename ..",
        "dir \"a\\x00b\"",
        "oom-score-adj-values 1 2 2001",
        "rename-command a",
        "rename-command \"\" b",
        "supervised upstart",
        "slowlog-log-slower-than -2",
        "client-output-buffer-limit foo 1 2 3",
        "client-output-buffer-limit normal -1 2 3",
        "metrics-bind x",
        "requirepass a b",
        "include",
        "include a b",
        "appendonly yes",
        "appendonly",
        "cluster-enabled yes",
        "replicaof host 1",
        "slaveof host 1",
        "tls-port 1",
        "loadmodule x.so",
        "appendfsync never",
        "appendfilename",
        "auto-aof-rewrite-percentage 1x",
        "auto-aof-rewrite-min-size 1xb",
        "aof-load-truncated 1",
        "user default on",
        "io-threads 0",
    ] {
        let error = load(line).unwrap_err();
        assert!(error.starts_with("cowherd.conf:1: "), "{line}: {error}");
    }
}

#[test]
fn hz_out_of_bounds_counts_as_the_nearest_bound() {
    assert_eq!(load("hz 0").unwrap().hz, 1);
    assert_eq!(load("hz 2147483647").unwrap().hz, 500);
}

#[test]
fn what_asks_for_nothing_that_is_lacking_is_accepted() {
    let text = "appendonly no\nappendfsync everysec\ncluster-enabled NO\nreplicaof no one\n\
                slaveof no one\ntls-port 0\ndaemonize no\nio-threads-do-reads yes\naclfile \"\"\n\
                appendfilename a.aof\nappenddirname a\nno-appendfsync-on-rewrite yes\n\
                auto-aof-rewrite-percentage 0\nauto-aof-rewrite-min-size 1gb\n\
                aof-load-truncated no\naof-use-rdb-preamble no\naof-timestamp-enabled yes\n\
                aof-rewrite-incremental-fsync no\n";
    assert_eq!(load(text).unwrap(), Config::default());
}

#[test]
fn passwords_stay_out_of_messages() {
    for text in ["requirepass hunter2 x", "rename-command hunter2", "user u on >hunter2"] {
        assert!(!load(text).unwrap_err().contains("hunter2"), "{text}");
    }
}

#[test]
fn includes_are_read_where_they_stand() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    std::fs::write(folder.path().join("sub/a.conf"), "port 2\nhz 20\ninclude b.conf\n").unwrap();
    std::fs::write(folder.path().join("b.conf"), "timeout 9\n\nbogus 1\n").unwrap();

    let text = "port 1\nhz 11\ninclude sub/a.conf\nport 3\n";
    assert_eq!(
        load_in(folder.path(), text).unwrap_err(),
        "b.conf:3: unknown directive 'bogus'; --help lists the known ones"
    );
    std::fs::write(folder.path().join("b.conf"), "timeout 9\n").unwrap();
    let config = load_in(folder.path(), text).unwrap();
    assert_eq!((config.port, config.hz, config.timeout), (3, 20, 9));
    let error = load_in(folder.path(), "\ninclude none.conf").unwrap_err();
    let start = "cowherd.conf:2: cannot read the included file 'none.conf': No such file";
    assert!(error.starts_with(start), "{error}");
}

#[test]
fn includes_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("a.conf", "include b.conf\n");
    write("b.conf", "hz 20\ninclude a.conf\n");
    let error = load_in(folder.path(), "include a.conf").unwrap_err();
    let end = "'a.conf' includes itself; remove one include of the circle";
    assert_eq!(error, format!("b.conf:2: {end}"));

    for depth in 0..20 {
        write(&format!("{depth}.conf"), &format!("include {}.conf\n", depth + 1));
    }
    write("20.conf", "");
    load_in(folder.path(), "include 5.conf").unwrap();
    let error = load_in(folder.path(), "include 0.conf").unwrap_err();
    assert!(error.contains("more than 16 includes inside each other"), "{error}");

    let error = load_in(folder.path(), &"include 20.conf\n".repeat(300)).unwrap_err();
    assert!(error.starts_with("cowherd.conf:256: more than"), "{error}");
}

#[test]
fn a_long_text_is_refused() {
    let error = load(&"#".repeat(1 + (1 << 20))).unwrap_err();
    assert!(error.contains("longer than 1048576 bytes"), "{error}");
    load(&"#".repeat(1 << 20)).unwrap();
}

#[test]
fn automatic_memory_is_a_share_of_the_machine() {
    let machine = machine_memory().effective;
    let automatic = Config::default().effective_maxmemory();
    assert!(automatic > machine / 2 && automatic <= machine / 10 * 6, "{automatic} of {machine}");
    let config = Config { maxmemory: 7, ..Config::default() };
    assert_eq!(config.effective_maxmemory(), 7);
}

#[test]
fn a_setting_without_effect_gets_a_note() {
    assert!(Config::default().warnings().is_empty());
    let config = Config { rdbchecksum: false, ..Config::default() };
    assert!(config.warnings()[0].contains("rdbchecksum"));
}

/// The sample names every directive, its active lines are the defaults, and its commented
/// examples (a `#` directly before a directive) are valid.
#[test]
fn the_sample_file_tells_the_truth() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../cowherd.conf"));
    let sample = std::fs::read_to_string(path).unwrap();
    assert_eq!(load(&sample).unwrap(), Config::default());
    for directive in directives() {
        let named = |line: &str| {
            line.trim_start_matches('#').split(' ').next() == Some(directive.name)
                && !line.starts_with("# ")
        };
        assert!(sample.lines().any(named), "the sample lacks {}", directive.name);
    }
    for line in sample.lines().filter(|line| !line.starts_with("# ")) {
        let example = line.trim_start_matches('#');
        if !example.starts_with("include ") {
            load(example).unwrap();
        }
    }
}

proptest! {
    #[test]
    fn what_is_shown_is_read_back(config in some_config()) {
        let mut copy = Config::default();
        for directive in directives() {
            apply(&mut copy, directive.name, &directive.show(&config)).unwrap();
        }
        prop_assert_eq!(copy, config);
    }

    #[test]
    fn set_takes_what_get_gives(config in some_config()) {
        let mut copy = config.clone();
        for directive in directives().iter().filter(|it| it.changeable) {
            copy.set(directive.name, &config.get(directive.name).unwrap()).unwrap();
        }
        prop_assert_eq!(copy, config);
    }

    #[test]
    fn any_text_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let folder = tempfile::tempdir().unwrap();
        let mut loader = ConfigLoader::new(folder.path());
        let _ = loader.standard_input(bytes.as_slice());
    }

    #[test]
    fn any_value_is_read_or_refused(
        index in 0..directives().len(),
        words in proptest::collection::vec(any::<String>(), 0..6),
    ) {
        let directive = &directives()[index];
        let mut config = Config::default();
        if directive.apply(&mut config, &words, false).is_ok() {
            let shown = directive.show(&config);
            let mut copy = Config::default();
            apply(&mut copy, directive.name, &shown).unwrap();
            prop_assert_eq!(directive.show(&copy), shown);
        }
    }

    #[test]
    fn any_arguments_start_or_are_refused(
        args in proptest::collection::vec(
            prop_oneof![
                any::<String>(),
                "--[a-z-]{0,12}",
                "--(save|port|bind|maxmemory|rename-command|include)( .{0,5})?",
                Just("-".to_owned()),
                "[0-9]{1,6}(kb|%)?",
            ],
            0..8,
        ),
        input in any::<String>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let _ = command_line::start(&args, folder.path(), input.as_bytes());
    }

    #[test]
    fn any_pairs_are_set_or_refused(
        pairs in proptest::collection::vec((any::<String>(), any::<String>()), 0..4),
    ) {
        let live = LiveConfig::new(Config::default(), None);
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        if !pairs.is_empty() {
            prop_assert!(live.update(&pairs).is_err());
        }
    }
}
