use super::*;

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Starts in `base` with `input` on standard input.
fn start_in(base: &Path, words: &[&str], input: &str) -> Result<Config, String> {
    match start(&strings(words), base, input.as_bytes()) {
        Ok(Startup::Run(config, _)) => Ok(*config),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

fn run(words: &[&str]) -> Result<Config, String> {
    start_in(Path::new("/"), words, "")
}

fn save_of(words: &[&str]) -> String {
    run(words).unwrap().get("save").unwrap()
}

#[test]
fn no_arguments_give_the_defaults() {
    assert_eq!(run(&[]).unwrap(), Config::default());
}

#[test]
fn values_run_to_the_next_option() {
    let config = run(&["--save", "900", "1", "300", "10", "--PORT", "7000"]).unwrap();
    assert_eq!(config.get("save").unwrap(), "900 1 300 10");
    assert_eq!(config.port, 7000);
    assert_eq!(run(&["--port 7001", "--hz", "20"]).unwrap().port, 7001);
}

#[test]
fn save_may_stand_alone_and_may_be_one_word() {
    for words in [&["--save", "", "--port", "1"] as &[&str], &["--save", "--port", "1"]] {
        assert_eq!(save_of(words), "");
        assert_eq!(run(words).unwrap().port, 1);
    }
    assert_eq!(save_of(&["--port", "1", "--save"]), "");
    assert_eq!(save_of(&["--save", "900 1"]), "900 1");
    assert_eq!(save_of(&["--save", "900 1", "--save", "60 5"]), "900 1 60 5");
    assert_eq!(save_of(&["--save", "900 1", "--save", "", "--save", "60 5"]), "60 5");
}

#[test]
fn the_word_after_an_option_is_its_value() {
    let config = run(&["--requirepass", "--secret", "--port", "7"]).unwrap();
    assert_eq!(config.requirepass.as_deref(), Some("--secret"));
    assert_eq!(config.port, 7);
    let error = run(&["--port", "--maxmemory", "1"]).unwrap_err();
    assert!(error.starts_with("command line: port: wrong number of arguments"), "{error}");
}

#[test]
fn file_then_standard_input_then_options() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.conf"), "port 1\nhz 11\ntimeout 5\nsave 9 9\n").unwrap();
    let words = ["a.conf", "--port", "3", "--save", "7", "7", "-"];
    let config = start_in(folder.path(), &words, "port 2\nhz 12\nsave 8 8\n").unwrap();
    assert_eq!((config.port, config.hz, config.timeout), (3, 12, 5));
    assert_eq!(config.get("save").unwrap(), "9 9 8 8 7 7");

    let config = start_in(folder.path(), &["-", "--hz", "13"], "port 2\n").unwrap();
    assert_eq!((config.port, config.hz), (2, 13));
}

#[test]
fn the_file_is_named_absolutely() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.conf"), "").unwrap();
    let started = start(&strings(&["a.conf"]), folder.path(), "".as_bytes()).unwrap();
    let Startup::Run(_, Some(file)) = started else { panic!("{started:?}") };
    assert_eq!(file, folder.path().join("a.conf"));
    let started = start(&[], folder.path(), "".as_bytes()).unwrap();
    assert!(matches!(started, Startup::Run(_, None)));
}

#[test]
fn stray_words_are_refused() {
    for words in [&["-p", "1"] as &[&str], &["--"], &["-x"]] {
        let error = run(words).unwrap_err();
        assert!(error.contains("is no option"), "{words:?}: {error}");
    }
    let error = run(&["/dev/null", "stray"]).unwrap_err();
    assert!(error.contains("'stray' is no option"), "{error}");
}

#[test]
fn errors_name_the_location() {
    assert_eq!(
        run(&["--maxmemroy", "1"]).unwrap_err(),
        "command line: unknown directive 'maxmemroy'; did you mean 'maxmemory'?"
    );
    assert_eq!(
        start_in(Path::new("/"), &["-"], "\n# x\nfoobar 1").unwrap_err(),
        "standard input:3: unknown directive 'foobar'; --help lists the known ones"
    );
    let error = run(&["no/such.conf"]).unwrap_err();
    assert!(error.starts_with("cannot read the configuration file 'no/such.conf': "), "{error}");
}

#[test]
fn help_and_version_come_first() {
    for word in ["--help", "-h"] {
        let Ok(Startup::Help(text)) = start(&strings(&[word]), Path::new("/"), "".as_bytes())
        else {
            panic!("no help")
        };
        for directive in directives() {
            assert!(text.contains(&format!("  --{} ", directive.name)), "{directive:?}");
        }
    }
    for word in ["--version", "-v"] {
        let Ok(Startup::Version(text)) = start(&strings(&[word]), Path::new("/"), "".as_bytes())
        else {
            panic!("no version")
        };
        assert_eq!(text, format!("cowherd {}", env!("CARGO_PKG_VERSION")));
    }
}
