use std::sync::Barrier;

use super::*;

fn live() -> LiveConfig {
    LiveConfig::new(Config::default(), None)
}

fn message(result: Result<(), SetError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn all_pairs_change_or_none() {
    let live = live();
    live.update(&[("maxmemory", "5mb"), ("TIMEOUT", "7")]).unwrap();
    assert_eq!((live.current().maxmemory, live.current().timeout), (5 << 20, 7));
    assert_eq!(live.generation(), 1);

    let error = message(live.update(&[("maxmemory", "6mb"), ("timeout", "x")]));
    assert_eq!(
        error,
        "ERR CONFIG SET failed (possibly related to argument 'timeout') - \
         argument couldn't be parsed into an integer"
    );
    assert_eq!((live.current().maxmemory, live.generation()), (5 << 20, 1));
}

#[test]
fn refusals_are_worded_as_in_redis() {
    let live = live();
    let failed = |name: &str, why: &str| {
        format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}")
    };
    let between =
        |low: &str, high: &str| format!("argument must be between {low} and {high} inclusive");
    for (pairs, expected) in [
        (
            &[("x", "1")] as &[(&str, &str)],
            "ERR Unknown option or number of arguments for CONFIG SET - 'x'".to_owned(),
        ),
        (&[("timeout", "5"), ("Foo", "1")], {
            "ERR Unknown option or number of arguments for CONFIG SET - 'Foo'".to_owned()
        }),
        (&[("maxmemory", "abc")], failed("maxmemory", "argument must be a memory value")),
        (&[("DATABASES", "4")], failed("DATABASES", "can't set immutable config")),
        (&[("dir", "/")], failed("dir", "can't set protected config")),
        (&[("hz", "9"), ("HZ", "9")], failed("HZ", "duplicate parameter")),
        (&[("timeout", "007")], {
            failed("timeout", "argument couldn't be parsed into an integer")
        }),
        (&[("timeout", "-1")], failed("timeout", &between("0", "2147483647"))),
        (&[("maxclients", "99999999999")], failed("maxclients", &between("1", "4294967295"))),
        (&[("protected-mode", "maybe")], {
            failed("protected-mode", "argument must be 'yes' or 'no'")
        }),
        (&[("save", "900")], failed("save", "Invalid save parameters")),
        (&[("save", "0 1")], failed("save", "Invalid save parameters")),
        (&[("notify-keyspace-events", "KEQ!")], {
            let why = "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.";
            failed("notify-keyspace-events", why)
        }),
        (&[("oom-score-adj-values", "1 2")], {
            failed("oom-score-adj-values", "wrong number of arguments")
        }),
        (&[("client-output-buffer-limit", "normal 1mb 2mb")], {
            let why = "Wrong number of arguments in buffer limit configuration.";
            failed("client-output-buffer-limit", why)
        }),
        (&[("maxmemory-policy", "foo")], {
            let names = "volatile-lru, volatile-lfu, volatile-random, volatile-ttl, allkeys-lru, \
                         allkeys-lfu, allkeys-random, noeviction";
            failed(
                "maxmemory-policy",
                &format!("argument(s) must be one of the following: {names}"),
            )
        }),
    ] {
        assert_eq!(message(live.update(pairs)), expected);
    }
    assert_eq!(live.generation(), 0);
    assert_eq!(*live.current(), Config::default());
}

#[test]
fn what_is_lacking_is_said() {
    let live = live();
    live.update(&[("appendonly", "no")]).unwrap();
    let error = message(live.update(&[("appendonly", "yes")]));
    assert!(error.contains("append-only files are not supported"), "{error}");
    assert!(error.starts_with("ERR CONFIG SET failed"), "{error}");
}

#[test]
fn the_caller_may_object() {
    #[derive(Debug, PartialEq)]
    struct TooMuch;
    impl From<SetError> for TooMuch {
        fn from(_: SetError) -> Self {
            TooMuch
        }
    }
    let live = live();
    let object = |old: &Config, new: &Config| {
        assert_eq!((old.maxmemory, new.maxmemory), (0, 9));
        Err(TooMuch)
    };
    assert_eq!(live.update_if(&[("maxmemory", "9")], object), Err(TooMuch));
    assert_eq!((live.current().maxmemory, live.generation()), (0, 0));
}

#[test]
fn matching_lists_names_and_aliases() {
    let live = live();
    let find = |wanted: &str| live.matching(|name| name.starts_with(wanted));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        find("maxmemory"),
        [
            pair("maxmemory", "0"),
            pair("maxmemory-policy", "noeviction"),
            pair("maxmemory-samples", "5")
        ]
    );
    assert_eq!(find("save"), [pair("save", "3600 1 300 100 60 10000")]);
    assert_eq!(find("appendonly"), [pair("appendonly", "no")]);
    assert_eq!(find("io-threads").len(), 1);
    assert!(find("rename-command").is_empty());
    assert!(find("nothing").is_empty());
}

#[test]
fn a_view_sees_each_change() {
    let live = Arc::new(live());
    let mut view = CachedConfig::new(Arc::clone(&live));
    assert_eq!(view.get().timeout, 0);
    live.update(&[("timeout", "5")]).unwrap();
    assert_eq!(view.get().timeout, 5);
    let before = Arc::as_ptr(&view.config);
    assert_eq!(view.get().timeout, 5);
    assert_eq!(before, Arc::as_ptr(&view.config));
}

#[test]
fn views_never_see_half_a_change() {
    let live = Arc::new(live());
    let start = Barrier::new(3);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut view = CachedConfig::new(Arc::clone(&live));
                start.wait();
                let mut last = 0;
                while last < 200 {
                    let config = view.get();
                    assert_eq!(u64::from(config.timeout), config.maxmemory);
                    assert!(config.timeout >= last);
                    last = config.timeout;
                }
            });
        }
        start.wait();
        for step in 1..=200 {
            let step = step.to_string();
            live.update(&[("timeout", &step), ("maxmemory", &step)]).unwrap();
        }
    });
}

#[test]
fn without_a_file_there_is_nothing_to_rewrite() {
    let error = live().rewrite().unwrap_err().to_string();
    assert_eq!(error, "ERR The server is running without a config file");
}
