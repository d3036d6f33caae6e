//! The Debian package: its content, its installation into a bare Debian, and the server that the
//! installed unit and configuration start.

use anyhow::{Context, Result, ensure};
use client_tests::binaries::run_cowherd;
use client_tests::wire::RawConnection;
use client_tests::{TestResult, debian, ports, skip, tools};
use nix::sys::signal::Signal;
use std::collections::HashMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);
/// Deadline of commands that compress or install packages.
const LONG: Duration = Duration::from_secs(600);

const UNIT: &str = "/usr/lib/systemd/system/cowherd.service";
const CONFIG: &str = "/etc/cowherd/cowherd.conf";
const STATE: &str = "var/lib/cowherd";

/// Runs a program in the root `$0` as user `cowherd`, with a `/proc` that disappears together with
/// the mount namespace of the program.
const ENTER: &str = r#"
    mount -t proc proc "$0/proc" && exec chroot --userspec=cowherd:cowherd "$0" "$@"
"#;

/// Path of a package with the binaries that were built for these tests; `Ok(Err(reason))`, for
/// [`skip!`], if this machine cannot build it.
fn package() -> Result<Result<&'static Path, String>> {
    static PACKAGE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    for program in ["dpkg", "dpkg-deb", "dpkg-shlibdeps", "strip"] {
        if tools::find(program).is_none() {
            return Ok(Err(format!("there is no {program} on PATH")));
        }
    }
    if !tools::client_tools().join("bin/cargo-deb").is_file() {
        return Ok(Err("there is no cargo-deb: ./test installs it".into()));
    }
    // target/<profile>/deps/<this test>; the binaries of COWHERD_BIN may lie elsewhere.
    let test = std::env::current_exe()?;
    let folder = test.parent().and_then(Path::parent).context("this test has no folder")?;
    let profile = folder.file_name().and_then(|name| name.to_str()).context("no profile")?;
    if profile == "debug" {
        return Ok(Err("cargo-deb packages no build of profile dev".into()));
    }
    let target = folder.parent().context("no target folder")?;
    let built = PACKAGE.get_or_init(|| {
        build(profile, target).map_err(|error| format!("cannot build the package: {error:#}"))
    });
    match built {
        Ok(path) => Ok(Ok(path)),
        Err(error) => Err(anyhow::anyhow!("{error}")),
    }
}

fn build(profile: &str, target: &Path) -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cowherd-{profile}.deb"));
    let mut script = Command::new(tools::package_file("../server/cowherd/packaging/build-deb.sh"));
    script
        .args(["--built", profile, "--output"])
        .arg(&path)
        .env("CARGO_TARGET_DIR", target)
        .env("COWHERD_CLIENT_TOOLS", tools::client_tools());
    tools::run(&mut script, b"", LONG)?.success()?;
    Ok(path)
}

macro_rules! package {
    () => {
        match package()? {
            Ok(path) => path,
            Err(reason) => skip!("{reason}"),
        }
    };
}

fn output(program: &str, arguments: &[&str], path: &Path) -> Result<String> {
    let mut command = Command::new(program);
    tools::run(command.args(arguments).arg(path), b"", LONG)?.success()
}

/// Reads a file of the source tree.
fn source(path: &str) -> Result<String> {
    let path = tools::package_file("..").join(path);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Modes of all files and folders in the package, in the notation of `ls -l`.
fn modes(package: &Path) -> Result<HashMap<String, String>> {
    let listing = output("dpkg-deb", &["--contents"], package)?;
    let mut modes = HashMap::new();
    for line in listing.lines() {
        // -rwxr-xr-x 0/0   5085152 2026-11-28 00:00 ./usr/bin/cowherd
        let words: Vec<&str> = line.split_whitespace().collect();
        let [mode, owner, _, _, _, path] = words[..] else { anyhow::bail!("not a file: {line}") };
        ensure!(owner == "0/0" || owner == "root/root", "{line}");
        modes.insert(path.trim_start_matches('.').to_owned(), mode.to_owned());
    }
    Ok(modes)
}

#[test]
fn control_fields_name_version_and_dependencies() -> TestResult {
    let package = package!();
    let field = |name: &str| -> Result<String> {
        let mut command = Command::new("dpkg-deb");
        command.arg("--field").arg(package).arg(name);
        Ok(tools::run(&mut command, b"", DEADLINE)?.success()?.trim().to_owned())
    };
    ensure!(field("Package")? == "cowherd");
    let version = run_cowherd(&["--version"])?.success()?;
    let version = version.trim().trim_start_matches("cowherd ").to_owned();
    ensure!(field("Version")? == format!("{version}-1"), "{version}");
    let depends = field("Depends")?;
    for package in ["adduser", "libc6 (>= "] {
        ensure!(depends.contains(package), "no {package} in Depends: {depends}");
    }
    ensure!(field("Section")? == "database");
    let description = field("Description")?;
    ensure!(description.lines().count() > 3, "{description}");
    ensure!(description.lines().all(|line| line.len() <= 80), "{description}");
    Ok(())
}

#[test]
fn the_package_holds_each_file_with_its_mode() -> TestResult {
    let modes = modes(package!())?;
    let expected = [
        ("/usr/bin/cowherd", "-rwxr-xr-x"),
        ("/usr/bin/cowherd-bench", "-rwxr-xr-x"),
        (CONFIG, "-rw-r--r--"),
        (UNIT, "-rw-r--r--"),
        ("/usr/share/man/man1/cowherd.1.gz", "-rw-r--r--"),
        ("/usr/share/man/man1/cowherd-bench.1.gz", "-rw-r--r--"),
        ("/usr/share/doc/cowherd/copyright", "-rw-r--r--"),
        ("/usr/share/doc/cowherd/changelog.gz", "-rw-r--r--"),
        ("/usr/share/doc/cowherd/changelog.Debian.gz", "-rw-r--r--"),
        ("/usr/share/doc/cowherd/README.md", "-rw-r--r--"),
        ("/usr/share/doc/cowherd/docs/operations.md", "-rw-r--r--"),
    ];
    for (path, mode) in expected {
        let found = modes.get(path).with_context(|| format!("no {path} in {modes:?}"))?;
        ensure!(found == mode, "{path} has {found}");
    }
    for (path, mode) in &modes {
        let is_folder = path.ends_with('/');
        ensure!(is_folder == mode.starts_with('d'), "{path} has {mode}");
        ensure!(!is_folder || mode == "drwxr-xr-x", "{path} has {mode}");
        let is_program = path.starts_with("/usr/bin/") && !is_folder;
        ensure!(is_folder || is_program == mode.contains('x'), "{path} has {mode}");
    }
    Ok(())
}

#[test]
fn configuration_scripts_and_manual_agree_with_the_source_tree() -> TestResult {
    let package = package!();
    let scratch = tempfile::tempdir()?;
    let (root, control) = (scratch.path().join("root"), scratch.path().join("control"));
    for (action, folder) in [("--extract", &root), ("--control", &control)] {
        let mut command = Command::new("dpkg-deb");
        command.arg(action).arg(package).arg(folder);
        tools::run(&mut command, b"", DEADLINE)?.success()?;
    }
    let read = |folder: &Path, name: &str| -> Result<String> {
        let path = folder.join(name.trim_start_matches('/'));
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    };

    ensure!(read(&control, "conffiles")?.trim() == CONFIG);
    let template = source("cowherd.conf")?;
    let packaged = read(&root, CONFIG)?;
    let changed = template.lines().zip(packaged.lines()).filter(|(old, new)| old != new);
    let changed: Vec<_> = changed.collect();
    ensure!(changed == [("dir ./", "dir /var/lib/cowherd")], "{changed:?}");
    ensure!(template.lines().count() == packaged.lines().count());

    let unit = read(&root, UNIT)?;
    ensure!(unit == source("server/cowherd/packaging/cowherd.service")?);
    let started = exec_start(&unit)?;
    ensure!(started[0] == "/usr/bin/cowherd" && started[1] == CONFIG, "{started:?}");

    for script in ["postinst", "prerm", "postrm"] {
        let text = read(&control, script)?;
        ensure!(text.starts_with("#!/bin/sh\n") && text.contains("set -e"), "{script}: {text}");
        ensure!(!text.contains("#DEBHELPER#"), "{script} lacks the part for systemd: {text}");
        let mode = std::fs::metadata(control.join(script))?.permissions().mode() & 0o777;
        ensure!(mode == 0o755, "{script} has {mode:o}");
        output("sh", &["-n"], &control.join(script)).with_context(|| script.to_owned())?;
    }

    // The manual has a paragraph for each directive of --help.
    let page = output("gzip", &["-dc"], &root.join("usr/share/man/man1/cowherd.1.gz"))?;
    let help = run_cowherd(&["--help"])?.success()?;
    let directives = help.lines().filter_map(|line| line.strip_prefix("  --"));
    let mut count = 0;
    for directive in directives {
        let name = directive.split(' ').next().unwrap_or_default().replace('-', "\\-");
        ensure!(page.contains(&format!(".TP\n\\fB\\-\\-{name}\\fR")), "no {name} in {page}");
        count += 1;
    }
    ensure!(count > 40, "--help lists {count} directives");
    let page = output("gzip", &["-dc"], &root.join("usr/share/man/man1/cowherd-bench.1.gz"))?;
    ensure!(page.contains(".SH PAGES") && page.contains(".SH SNAPSHOT"), "{page}");
    Ok(())
}

/// Splits the command line of the unit.
fn exec_start(unit: &str) -> Result<Vec<&str>> {
    let mut commands = unit.lines().filter_map(|line| line.strip_prefix("ExecStart="));
    let command = commands.next().context("the unit starts nothing")?;
    ensure!(commands.next().is_none(), "the unit starts two programs");
    Ok(command.split(' ').collect())
}

/// A bare Debian with the package installed.
struct Installation {
    root: tempfile::TempDir,
}

impl Installation {
    fn new(package: &Path) -> Result<Self> {
        let root = tempfile::tempdir()?;
        // User cowherd must be able to enter it.
        std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o755))?;
        debian::bootstrap(&debian::release()?, "", root.path())?;
        let installation = Self { root };
        installation.dpkg(&["--install".as_ref(), package.as_os_str()])?;
        Ok(installation)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn dpkg(&self, arguments: &[&std::ffi::OsStr]) -> Result<String> {
        let mut command = Command::new("dpkg");
        command.arg("--root").arg(self.root.path()).args(arguments);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        tools::run(&mut command, b"", LONG)?.success()
    }

    /// Builds a command that runs in the root as user `cowherd`.
    fn command(&self, program: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", ENTER]);
        command.arg(self.root.path()).args(program).stdin(Stdio::null());
        command
    }

    fn run(&self, program: &[&str]) -> Result<String> {
        tools::run(&mut self.command(program), b"", DEADLINE)?.success()
    }

    /// User and group id of the user `cowherd`.
    fn user(&self) -> Result<(u32, u32)> {
        let users = std::fs::read_to_string(self.path("/etc/passwd"))?;
        let line = users.lines().find(|line| line.starts_with("cowherd:"));
        let line = line.with_context(|| format!("no user cowherd in {users}"))?;
        let fields: Vec<&str> = line.split(':').collect();
        ensure!(fields[5] == format!("/{STATE}") && fields[6].ends_with("nologin"), "{line}");
        Ok((fields[2].parse()?, fields[3].parse()?))
    }

    fn mode_and_owner(&self, path: &str) -> Result<(u32, u32, u32)> {
        let metadata = std::fs::metadata(self.path(path)).with_context(|| path.to_owned())?;
        Ok((metadata.mode() & 0o777, metadata.uid(), metadata.gid()))
    }
}

/// A server that runs the unit's command line, with a socket of the test in place of systemd's.
struct Service {
    process: Child,
    notifications: UnixDatagram,
    port: u16,
    log: PathBuf,
}

impl Service {
    fn start(installation: &Installation, log: PathBuf) -> Result<Self> {
        let socket = installation.path("/run/notify");
        let notifications = UnixDatagram::bind(&socket)?;
        std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o777))?;
        notifications.set_read_timeout(Some(DEADLINE))?;
        let unit = std::fs::read_to_string(installation.path(UNIT))?;
        let (port, metrics_port) = (ports::free()?.to_string(), ports::free()?.to_string());
        let mut program = exec_start(&unit)?;
        program.extend(["--port", &port, "--metrics-port", &metrics_port]);
        program.extend(["--maxmemory", "64mb", "--arena-pages", "small"]);
        let file = std::fs::File::create(&log)?;
        let mut command = installation.command(&program);
        command.env("NOTIFY_SOCKET", "/run/notify").stdout(file.try_clone()?).stderr(file);
        let process = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let service = Self { process, notifications, port: port.parse()?, log };
        service.expect("READY=1")?;
        Ok(service)
    }

    /// Waits for the next notification and compares its first line with `state`.
    fn expect(&self, state: &str) -> Result<()> {
        let mut buffer = [0; 200];
        let length = self.notifications.recv(&mut buffer).with_context(|| self.log())?;
        let received = String::from_utf8_lossy(&buffer[..length]);
        let first = received.lines().next().unwrap_or_default();
        ensure!(first == state, "{received} instead of {state}: {}", self.log());
        Ok(())
    }

    fn stop(mut self) -> Result<()> {
        tools::signal(self.process.id(), Signal::SIGTERM)?;
        self.expect("STOPPING=1")?;
        let status = tools::wait(&mut self.process, DEADLINE)?;
        ensure!(status.is_some_and(|status| status.success()), "{status:?}: {}", self.log());
        Ok(())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[test]
fn an_installed_package_serves_and_keeps_its_images_when_purged() -> TestResult {
    let package = package!();
    if !tools::is_root() {
        skip!("no root: cannot install a package");
    }
    for program in ["debootstrap", "unshare", "chroot"] {
        if tools::find(program).is_none() {
            skip!("there is no {program} on PATH");
        }
    }
    let installation = Installation::new(package)?;
    let (user, group) = installation.user()?;
    let enabled = "/etc/systemd/system/multi-user.target.wants/cowherd.service";
    ensure!(installation.path(enabled).is_symlink(), "the unit is not enabled");
    ensure!(installation.mode_and_owner(CONFIG)? == (0o640, 0, group));
    ensure!(installation.mode_and_owner(STATE)? == (0o700, user, group));
    let bench = installation.run(&["cowherd", "bench", "--help"])?;
    ensure!(bench.contains("snapshot"), "{bench}");

    let log = installation.path("/run/log");
    let service = Service::start(&installation, log.clone())?;
    let mut client = RawConnection::connect(service.port)?;
    ensure!(client.text(&["SET", "key", "value"])? == "OK");
    drop(client);
    service.stop()?;
    let image = format!("{STATE}/dump.cow");
    ensure!(installation.mode_and_owner(&image)? == (0o600, user, group));
    let checked = installation.run(&["cowherd", "check", &format!("/{image}")])?;
    ensure!(checked.contains("keys           1 "), "{checked}");
    std::fs::remove_file(installation.path("/run/notify"))?;
    let service = Service::start(&installation, log)?;
    ensure!(RawConnection::connect(service.port)?.text(&["GET", "key"])? == "value");
    service.stop()?;

    // Changes of an administrator survive another installation, and images survive a purge.
    let changed = std::fs::read_to_string(installation.path(CONFIG))? + "timeout 100\n";
    std::fs::write(installation.path(CONFIG), &changed)?;
    std::fs::set_permissions(installation.path(CONFIG), PermissionsExt::from_mode(0o600))?;
    installation.dpkg(&["--install".as_ref(), package.as_os_str()])?;
    ensure!(std::fs::read_to_string(installation.path(CONFIG))? == changed);
    ensure!(installation.mode_and_owner(CONFIG)? == (0o600, 0, group));
    installation.dpkg(&["--remove".as_ref(), "cowherd".as_ref()])?;
    ensure!(!installation.path("/usr/bin/cowherd").exists());
    ensure!(installation.path(CONFIG).exists(), "--remove removed the configuration");
    let purged = installation.dpkg(&["--purge".as_ref(), "cowherd".as_ref()])?;
    ensure!(purged.contains("/var/lib/cowherd still holds data"), "{purged}");
    ensure!(!installation.path("/etc/cowherd").exists(), "--purge left the configuration");
    ensure!(installation.path(&image).is_file(), "--purge removed an image");
    Ok(())
}
